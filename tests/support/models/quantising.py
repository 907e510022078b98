"""The tiny pipeline with quantised layers, by the libraries that people quantise with, on the CPU.

    pipe = quantised("gguf", workshop.model)     # skips the test where the library is missing

Where a loader works without a GPU it is used: diffusers' for torchao and GGUF, transformers' for a text encoder in
8 bits, layerwise casting. diffusers' bitsandbytes loader asks for one, so its layers are put in by hand.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models.tiny import tiny_pipeline
from support.registries.workshop import SPEC
from torch import nn

__all__ = ["KINDS", "NEEDS", "noise", "quantised", "read_by_text", "replaced"]


def quantised(kind: str, model: Path, *, which: str = ".attn2.to_") -> Any:
    """A pipeline in float32 with the weights of `model`, which was built from `SPEC` and whose UNet's layers with `which` in their names are quantised.

    torchao and layerwise casting quantise every layer that they can.
    """
    if (needed := NEEDS[kind]) is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not on this process's path: see tests/interop/test_quantised_libraries.py")
    pipe = plain()
    pipe.unet = KINDS[kind](pipe.unet, model, which)
    pipe.unet.eval()
    return pipe


def plain() -> Any:
    return tiny_pipeline(SPEC).to(torch.float32)


def noise(pipe: Any) -> torch.Tensor:
    """What the UNet predicts for one latent and one embedding."""
    latent = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
    seed = torch.Generator().manual_seed(0)
    embedding = 3 * torch.randn(1, 77, pipe.unet.config.cross_attention_dim, generator=seed)
    with torch.no_grad():
        found: torch.Tensor = pipe.unet(latent, 10, encoder_hidden_states=embedding)[0]
    return found


def read_by_text(unet: nn.Module, which: str = ".attn2.to_") -> dict[str, nn.Linear]:
    """The projections that read text, by name."""
    found = unet.named_modules()
    return {
        n: m for n, m in found if isinstance(m, nn.Linear) and which in n and n.endswith(("attn2.to_k", "attn2.to_v"))
    }


def replaced(unet: nn.Module, which: str, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for name, layer in read_by_text(unet, which).items():
        parent, _, child = name.rpartition(".")
        setattr(unet.get_submodule(parent), child, make(layer))
    return unet


def _eight_bits(unet: nn.Module, _: Path, which: str) -> nn.Module:
    import bitsandbytes

    def make(layer: nn.Linear) -> nn.Module:
        made: nn.Module = bitsandbytes.nn.Linear8bitLt(
            layer.in_features, layer.out_features, bias=False, has_fp16_weights=False
        )
        made.load_state_dict(layer.state_dict())
        return made.to("cpu")  # which is when it quantises

    return replaced(unet, which, make)


def _four_bits(unet: nn.Module, _: Path, which: str) -> nn.Module:
    import bitsandbytes

    def make(layer: nn.Linear) -> nn.Module:
        made: nn.Module = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, quant_type="nf4"
        )
        made.load_state_dict(layer.state_dict())
        return made.to("cpu")

    return replaced(unet, which, make)


def _torchao(_: nn.Module, model: Path, which: str) -> nn.Module:
    del which
    from diffusers import TorchAoConfig, UNet2DConditionModel
    from torchao.quantization import Int8WeightOnlyConfig

    loaded: nn.Module = UNet2DConditionModel.from_pretrained(
        model / "unet", quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), torch_dtype=torch.float32
    )
    return loaded


def _gguf(unet: nn.Module, model: Path, which: str) -> nn.Module:
    import gguf
    from diffusers import GGUFQuantizationConfig, UNet2DConditionModel

    few = gguf.GGMLQuantizationType.Q4_0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "unet.gguf"
        writer = gguf.GGUFWriter(file, "unet")
        coded = {f"{name}.weight" for name in read_by_text(unet, which)}
        for name, tensor in unet.state_dict().items():
            if name in coded:
                writer.add_tensor(name, gguf.quantize(tensor.numpy(), few), raw_dtype=few)
            else:
                writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        loaded: nn.Module = UNet2DConditionModel.from_single_file(
            str(file),
            quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
            torch_dtype=torch.float32,
            config=str(model),
            subfolder="unet",
        )
    return loaded


def _eight_bit_floats(unet: Any, _: Path, which: str) -> nn.Module:
    del which
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    found: nn.Module = unet
    return found


KINDS: dict[str, Callable[[nn.Module, Path, str], nn.Module]] = {
    "bitsandbytes-8": _eight_bits,
    "bitsandbytes-4": _four_bits,
    "torchao": _torchao,
    "gguf": _gguf,
    "float8": _eight_bit_floats,
}
NEEDS = {
    "bitsandbytes-8": "bitsandbytes",
    "bitsandbytes-4": "bitsandbytes",
    "torchao": "torchao",
    "gguf": "gguf",
    "float8": None,
}
