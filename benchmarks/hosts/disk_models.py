"""Models on disk with the shapes of real ones and random numbers in them, and patches for them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel

from rasura.patches.algebra.increment import Increment
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import ParamName

__all__ = ["RANK", "SHAPES", "UNET", "fill", "make_file", "make_folder", "patch_of", "shapes_of"]

RANK: Final = 4
UNET: Final = "diffusion_pytorch_model.safetensors"
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "SD 1.5": {
        "sample_size": 64,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    },
    "SDXL": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def make_folder(folder: Path, kind: str = "SD 1.5") -> None:
    """Shapes of the real model, values with standard deviation 0.03."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**SHAPES[kind])
        text: Any = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    (folder / "unet").mkdir(parents=True)
    unet.save_config(folder / "unet")
    (folder / "model_index.json").write_text("{}")
    fill(folder / "unet" / UNET, shapes_of(unet))
    if kind == "SD 1.5":
        (folder / "text_encoder").mkdir()
        text.config.save_pretrained(folder / "text_encoder")
        fill(folder / "text_encoder/model.safetensors", shapes_of(text))


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    """Of all parameters of a module without values."""
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def fill(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write a safetensors file one tensor after another: it never lies in memory as a whole."""
    header: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        stop = position + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            file.write((torch.randn(shape, generator=generator) * 0.03).half().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())


def make_file(folder: Path, file: Path) -> None:
    """The UNet of `folder` as a single file: the same bytes behind another header."""
    with safe_open(folder / "unet" / UNET, framework="pt") as tensors:
        names = list(tensors.keys())
    data = (folder / "unet" / UNET).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    renamed = {f"model.diffusion_model.{ldm_name(name)}": header[name] for name in names}
    text = json.dumps(renamed).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text + data[8 + length :])
        out.flush()
        os.fsync(out.fileno())


def ldm_name(name: str) -> str:
    """The CompVis name of a parameter of this UNet; what is inside other blocks than attention is no matter."""
    side, *rest = name.split(".")
    if side == "mid_block" and rest[0] == "attentions":
        return "middle_block.1." + ".".join(rest[2:])
    if len(rest) < 3 or rest[1] not in {"attentions", "resnets", "downsamplers", "upsamplers"}:
        return name
    block, kind, index, inner = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
    row, way = 3 * block + (side == "down_blocks"), "input" if side == "down_blocks" else "output"
    if kind.endswith("samplers"):
        end = f"{row + 2}.0.op" if way == "input" else f"{row + 2}.{1 if block == 0 else 2}.conv"
        return f"{way}_blocks.{end}.{inner.rpartition('.')[2]}"
    inside = f"1.{inner}" if kind == "attentions" else f"0.in_layers.0.{inner}"
    return f"{way}_blocks.{row + index}.{inside}"


def patch_of(host: CheckpointHost, seed: int) -> dict[ParamName, Increment]:
    """Increments of rank 4 for all cross-attention keys and values, about a twentieth of the weights."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[ParamName, Increment] = {}
    for name, info in host.parameters().items():
        if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
            outputs, width = info.shape
            A = torch.randn(RANK, width, generator=generator)
            B = torch.randn(outputs, RANK, generator=generator) * 0.05 * 0.03 * (width / RANK) ** 0.5
            made[name] = Increment.quantised(A / A.norm(dim=1, keepdim=True), B)
    return made
