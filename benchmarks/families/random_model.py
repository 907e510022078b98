"""Folders of released shapes with random weights, written tensor by tensor; `probe.py` runs this as other processes.

    python random_model.py configured NAME FOLDER    the denoiser's config.json; prints the number of its parameters
    python random_model.py whole NAME FOLDER         its weights in bfloat16, too, and an encoder with its tokenizer

The denoiser is built on torch's meta device and never held: each tensor is drawn, written and forgotten. The encoder
has the width, heads and feed-forward of the released one, random weights, one layer or two, and the small tokenizer
of the tests, to which the words of the pipeline's own instructions are added, so that each is one token. What it says
is nothing; what a layer takes to read a row is what it takes in the released one.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from released import CONFIGURED, WHOLE, Released

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.models.tiny_pipelines import byte_pairs
from support.models.tiny_t5 import t5_tokenizer

_STD: Final = 0.02
_PIPELINES: Final[Mapping[str, str]] = {
    "SanaTransformer2DModel": "SanaPipeline",
    "WanTransformer3DModel": "WanPipeline",
    "Lumina2Transformer2DModel": "Lumina2Pipeline",
    "ZImageTransformer2DModel": "ZImagePipeline",
}


def configure(released: Released, folder: Path) -> Any:
    """Write the denoiser's configuration; the denoiser itself is returned without weights."""
    with torch.device("meta"):
        module = getattr(diffusers, released.kind)(**released.options)
    module.save_config(folder / ("unet" if "UNet" in released.kind else "transformer"))
    return module


def write_weights(module: Any, path: Path) -> None:
    """Random weights in one safetensors file; ones where there is one number a channel, as norms begin."""
    torch.manual_seed(0)
    named = dict(module.named_parameters())
    header, at = {}, 0
    for name, parameter in named.items():
        size = parameter.numel() * 2
        header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [at, at + size]}
        at += size
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    with path.open("wb") as file:
        file.write(len(said).to_bytes(8, "little") + said)
        for parameter in named.values():
            file.write(_draw(tuple(parameter.shape)).view(torch.int16).numpy().tobytes())


def _draw(shape: tuple[int, ...]) -> torch.Tensor:
    flat = len(shape) < 2  # a bias or a norm
    return torch.ones(shape, dtype=torch.bfloat16) if flat else (torch.randn(shape) * _STD).to(torch.bfloat16)


def _gemma2(depth: int) -> tuple[Any, Any]:
    """Of Gemma 2 2B: 26 layers, 2304 wide."""
    tokenizer = t5_tokenizer()
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=2304, intermediate_size=9216, num_hidden_layers=depth,
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, pad_token_id=0,
    )  # fmt: skip
    return tokenizer, transformers.Gemma2Model(config)


def _umt5(depth: int) -> tuple[Any, Any]:
    """Of UMT5-XXL: 24 layers, 4096 wide."""
    tokenizer = t5_tokenizer()
    config = transformers.UMT5Config(
        vocab_size=len(tokenizer), d_model=4096, d_kv=64, d_ff=10240, num_layers=depth, num_heads=64,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    return tokenizer, transformers.UMT5EncoderModel(config)


def _qwen3(depth: int) -> tuple[Any, Any]:
    """Of Qwen3 4B: 36 layers, 2560 wide."""
    tokenizer = byte_pairs()
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=2560, intermediate_size=9728, num_hidden_layers=depth,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    )  # fmt: skip
    return tokenizer, transformers.Qwen3Model(config)


_ENCODERS: Final[Mapping[str, Callable[[int], tuple[Any, Any]]]] = {"Gemma2": _gemma2, "UMT5": _umt5, "Qwen3": _qwen3}


def _instructed(kind: Any) -> list[str]:
    """Longer words that a pipeline writes before every prompt."""
    said = inspect.signature(kind.__call__).parameters.get("complex_human_instruction")
    texts = said.default if said is not None else []
    return sorted({word for text in texts for word in re.findall(r"[A-Za-z]{4,}", text)})


def write_reading(released: Released, folder: Path) -> None:
    """The pipeline without its denoiser: encoder, tokenizer, schedule, index."""
    torch.manual_seed(1)
    kind = getattr(diffusers, _PIPELINES[released.kind])
    tokenizer, encoder = _ENCODERS[released.encoder](released.depth)
    tokenizer.add_tokens(_instructed(kind))
    encoder.resize_token_embeddings(len(tokenizer))
    pipeline = kind(
        tokenizer=tokenizer, text_encoder=encoder.to(torch.bfloat16), vae=None, transformer=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"transformer": ["diffusers", released.kind]}))


def main() -> None:
    """Write what was asked for."""
    what, name, place = sys.argv[1:]
    (released,) = (one for one in (*WHOLE, *CONFIGURED) if one.name == name)
    folder = Path(place)
    if what == "whole":
        write_reading(released, folder)
    module = configure(released, folder)
    if what == "whole":
        write_weights(module, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    print(sum(parameter.numel() for parameter in module.parameters()))


if __name__ == "__main__":
    main()
