"""A tiny random SDXL folder: two tokenizers that pad differently, two text encoders, a UNet that reads both side by side.

Words are one token each as in `tiny`; "!!" is one, too, but only for the first tokenizer: the second takes "!" for the
padding that it is.
"""

import functools
import json
import shutil
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import safe_open
from support.models.tiny import WORDS, byte_symbols, merges_of, workspace
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

__all__ = ["WIDTHS", "tiny_clip_encoders", "tiny_vae", "tiny_xl", "tiny_xl_pipeline", "xl_tokenizers"]

WIDTHS: Final = (64, 96)
"""Of the first and of the second text encoder."""


def tiny_xl(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A private copy of the pipeline folder, at `folder` (made; must not exist). Returns `folder`."""
    shutil.copytree(_built(dtype), folder)
    return folder


def tiny_xl_pipeline(folder: Path) -> Any:
    """The live `StableDiffusionXLPipeline` of a folder, in the dtype of its files."""
    with safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        dtype = file.get_tensor(next(iter(file.keys()))).dtype  # it is no mapping
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=dtype, local_files_only=True, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@functools.lru_cache(maxsize=1)
def xl_tokenizers() -> tuple[Any, Any]:
    """The first pads with the end of text, the second with "!"."""
    folder = workspace() / "vocabulary of two"
    folder.mkdir(exist_ok=True)
    merges = [*merges_of(WORDS), ("!", "!</w>")]
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return CLIPTokenizer(*files, model_max_length=77), CLIPTokenizer(*files, model_max_length=77, pad_token="!")


@functools.lru_cache(maxsize=4)
def _built(dtype: torch.dtype) -> Path:
    folder = workspace() / f"SDXL {dtype}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = _assemble()
    pipeline.to(dtype)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _assemble() -> Any:
    first, second = xl_tokenizers()
    one, two = tiny_clip_encoders(CLIPTextModel, CLIPTextModelWithProjection)
    return diffusers.StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=one,
        text_encoder_2=two,
        tokenizer=first,
        tokenizer_2=second,
        unet=_unet(),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )


def tiny_clip_encoders(first: Any, second: Any = None) -> tuple[Any, Any]:
    """Two encoders of these classes for the two tokenizers."""
    kinds = zip((first, second or first), xl_tokenizers(), WIDTHS, strict=True)
    one, two = (kind(_config(tokenizer, width)) for kind, tokenizer, width in kinds)
    return one, two


def _config(tokenizer: Any, width: int) -> Any:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unet() -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        norm_num_groups=8,
    )


def tiny_vae() -> Any:
    """A decoder of small pictures."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        shift_factor=0.0,
        force_upcast=False,
    )
