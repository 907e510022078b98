"""Tiny random Stable Diffusion folders: every part real and loadable, built in a second, a few megabytes.

A test asks for a spec and gets a private copy of a folder that was built once in this process:

    def test_something(tmp_path):
        folder = tiny_model(tmp_path / "model", TinySpec(dtype="float16"))

The tokenizer is a real CLIP byte-pair encoder over 256 bytes and a few merges. `dog`, `cat`, `photo`, `painting`, `of`,
`van`, `gogh` are one token each, so that `a photo of a dog` is five and `van gogh` two; any other word is spelled out
in bytes.
"""

import atexit
import functools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["TinySpec", "tiny_components", "tiny_model", "tiny_pipeline", "tiny_tokenizer"]

WORDS = ("dog", "cat", "photo", "painting", "of", "van", "gogh")
_END = "</w>"


@dataclass(frozen=True, slots=True)
class TinySpec:
    """What to build. Equal specs give equal bytes."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    size: Literal["small", "wide", "medium"] = "small"
    """small: text width 64, 4 cross-attention layers; wide: text width 128, as many; medium: text width 128, 10 of them."""
    sharded: bool = False
    """The UNet in several files with an index."""
    variant: str | None = None
    """`fp16` names the files `….fp16.safetensors`, as Hub repositories do."""
    seed: int = 0


def tiny_model(folder: Path, spec: TinySpec | None = None) -> Path:
    """A private copy of the pipeline folder of `spec`, at `folder` (made; must not exist). Returns `folder`."""
    shutil.copytree(_built(spec or TinySpec()), folder)
    return folder


def tiny_pipeline(spec: TinySpec | None = None) -> Any:
    """The live `StableDiffusionPipeline` of `spec`, loaded afresh from its folder, on the CPU, in its dtype."""
    spec = spec or TinySpec()
    dtype: torch.dtype = getattr(torch, spec.dtype)
    pipeline = StableDiffusionPipeline.from_pretrained(
        _built(spec), dtype=dtype, variant=spec.variant, safety_checker=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_components(spec: TinySpec | None = None) -> dict[str, Any]:
    """New live modules `unet` and `text_encoder` and the `tokenizer` of `spec`, without the pipeline around them."""
    spec = spec or TinySpec()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        tokenizer = tiny_tokenizer()
        parts = {"unet": _unet(spec), "text_encoder": _text_encoder(spec, tokenizer)}
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return {name: part.to(dtype).eval() for name, part in parts.items()} | {"tokenizer": tokenizer}


@functools.lru_cache(maxsize=1)
def tiny_tokenizer() -> "CLIPTokenizer":
    """A real `CLIPTokenizer` of 535 entries, 77 positions."""
    folder = workspace() / "vocabulary"
    folder.mkdir(exist_ok=True)
    merges = merges_of(WORDS)
    bytes_ = byte_symbols()
    tokens = [*bytes_, *(symbol + _END for symbol in bytes_), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    assert isinstance(tokenizer, CLIPTokenizer)
    return tokenizer


@functools.lru_cache(maxsize=1)
def workspace() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rasura-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.lru_cache(maxsize=32)
def _built(spec: TinySpec) -> Path:
    """The one folder of `spec` that all copies are taken from; nobody writes to it."""
    folder = Path(tempfile.mkdtemp(dir=workspace())) / "model"  # mkdtemp's own mode is of no use to other users
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        pipeline = _assemble(spec)
    pipeline.to(getattr(torch, spec.dtype))
    pipeline.save_pretrained(folder, safe_serialization=True, variant=spec.variant)
    if spec.sharded:
        shutil.rmtree(folder / "unet")
        pipeline.unet.save_pretrained(folder / "unet", max_shard_size="1MB", variant=spec.variant)
    return folder


def _assemble(spec: TinySpec) -> Any:
    tokenizer = tiny_tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(spec, tokenizer),
        tokenizer=tokenizer,
        unet=_unet(spec),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _width(spec: TinySpec) -> int:
    return 64 if spec.size == "small" else 128


def _unet(spec: TinySpec) -> Any:
    small = spec.size != "medium"
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 64) if small else (32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D") if small else ("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D") if small else ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=_width(spec),
        norm_num_groups=8,
    )


def _text_encoder(spec: TinySpec, tokenizer: "CLIPTokenizer") -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_width(spec),
        intermediate_size=2 * _width(spec),
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )


def merges_of(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Left-to-right merges that make each word one token."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        symbols = [*word[:-1], word[-1] + _END]
        left = symbols[0]
        for right in symbols[1:]:
            merges[left, right] = None
            left += right
    return list(merges)


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes that GPT-2's byte-level encoding uses."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + index) for index in range(len(others)))]
