"""The names of a single-file Stable Diffusion checkpoint, in ours.

One file of the CompVis layout (latent diffusion; what ComfyUI, A1111 and Forge load) holds the whole pipeline under
other names. Every parameter that a patch touches is a contiguous range of bytes in both, so a patch that was made on a
diffusers folder applies to the file of the same weights:

    model.diffusion_model.input_blocks.4.1.…        unet.down_blocks.1.attentions.0.…
    model.diffusion_model.middle_block.1.…          unet.mid_block.attentions.0.…
    model.diffusion_model.output_blocks.5.1.…       unet.up_blocks.1.attentions.2.…
    cond_stage_model.transformer.…                  text_encoder.…     CLIP as transformers spells it (SD 1)
    cond_stage_model.model.…                        text_encoder.…     OpenCLIP (SD 2)
    conditioner.embedders.0.transformer.…           text_encoder.…     SD XL
    conditioner.embedders.1.model.…                 text_encoder_2.…   OpenCLIP (SD XL)

Inside an attention block the names are the same. Which block a number stands for is read off the names that are there:
a level of the UNet ends where something is scaled (`op` on the way down, `conv` on the way up). OpenCLIP keeps query,
key and value in one tensor, of which each is a third. A mistake in here could not go unseen: whoever writes compares
digests with those of the base first.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rasura.patches._io.safetensors_file import TensorInfo
from rasura.patches.hosts.interface import name_parameter
from rasura.patches.types import ParamName

__all__ = ["Part", "find_unmatched", "is_average", "list_averages", "parts"]

_UNET: Final = "model.diffusion_model."
_AVERAGE: Final = "model_ema."
_CLIP: Final = {"cond_stage_model.transformer.": "text_encoder", "conditioner.embedders.0.transformer.": "text_encoder"}
_OPEN_CLIP: Final = {
    "cond_stage_model.model.": "text_encoder",
    "conditioner.embedders.0.model.": "text_encoder_2",  # the refiner of SD XL has only this one
    "conditioner.embedders.1.model.": "text_encoder_2",
}

_PLAIN: Final = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_INSIDE: Final = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "op": "conv",
}
_BLOCK: Final = re.compile(r"((?:input_blocks|output_blocks)\.(\d{1,3})\.(\d)|middle_block\.(\d))\.((\w+)\..+)")

_RESBLOCK: Final = re.compile(r"transformer\.resblocks\.(\d{1,3})\.(.+)\.(weight|bias)")
_FUSED: Final = re.compile(r"transformer\.resblocks\.(\d{1,3})\.attn\.in_proj_(weight|bias)")
_OPEN_LAYER: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OPEN_PLAIN: Final = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_TRANSPOSED: Final = "text_projection"


@dataclass(frozen=True, slots=True)
class Part:
    """One parameter: a whole tensor of the file, or a third of one."""

    name: ParamName
    tensor: TensorInfo
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the header's end."""
    stop: int
    """One past the last byte."""


def parts(tensors: Sequence[TensorInfo]) -> Iterator[Part]:
    """Every parameter that the file holds as a range of bytes; what is no part of UNet or text encoder is left out."""
    unet = [tensor.name.removeprefix(_UNET) for tensor in tensors if tensor.name.startswith(_UNET)]
    blocks = _blocks(unet)
    for tensor in tensors:
        if tensor.name.startswith(_UNET):
            key = _unet_key(tensor.name.removeprefix(_UNET), blocks)
            yield from _whole(tensor, "unet", key)
        for prefix, component in _CLIP.items():
            if tensor.name.startswith(prefix):
                yield from _whole(tensor, component, tensor.name.removeprefix(prefix))
        for prefix, component in _OPEN_CLIP.items():
            if tensor.name.startswith(prefix):
                yield from _open_clip(tensor, component, tensor.name.removeprefix(prefix))


def list_averages(tensors: Iterable[TensorInfo]) -> frozenset[str]:
    """Names of the UNet's tensors of which the file has a running average (EMA), too.

    Its key is the tensor's without `model.` and without dots.
    """
    names = {tensor.name for tensor in tensors}
    unet = (name for name in names if name.startswith(_UNET))
    return frozenset(name for name in unet if _AVERAGE + name.removeprefix("model.").replace(".", "") in names)


def is_average(name: str) -> bool:
    """Whether a tensor is a running average, or says how one was taken."""
    return name.startswith(_AVERAGE)


def find_unmatched(tensors: Iterable[TensorInfo]) -> dict[ParamName, str]:
    """Parameters that are no range of bytes in this file, and why."""
    found: dict[ParamName, str] = {}
    for tensor in tensors:
        for prefix, component in _OPEN_CLIP.items():
            if tensor.name == prefix + _TRANSPOSED:
                found[ParamName(f"{component}.text_projection.weight")] = f"{tensor.name} holds it transposed"
    return found


def _whole(tensor: TensorInfo, component: str, key: str | None) -> Iterator[Part]:
    if key is not None:
        yield Part(name_parameter(component, key), tensor, tensor.shape, tensor.start, tensor.stop)


def _unet_key(key: str, blocks: Mapping[str, str]) -> str | None:
    stem, _, leaf = key.rpartition(".")
    if stem in _PLAIN:
        return f"{_PLAIN[stem]}.{leaf}"
    found = _BLOCK.fullmatch(key)
    if found is None or found[1] not in blocks:
        return None
    inner = found[5].rpartition(".")[0]
    return f"{blocks[found[1]]}.{_INSIDE.get(inner, inner)}.{leaf}"


def _blocks(keys: Iterable[str]) -> dict[str, str]:
    """From `input_blocks.4.1` to `down_blocks.1.attentions.0`, for every block that these keys name."""
    words: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys:
        if found := _BLOCK.fullmatch(key):
            words[found[1]].add(found[6])
    kinds = {block: kind for block, inside in words.items() if (kind := _kind(inside))}
    return {
        **_scaled("input_blocks", "down_blocks", kinds),
        **_scaled("output_blocks", "up_blocks", kinds),
        **_mid(kinds),
    }


def _kind(words: set[str]) -> str | None:
    """What a block is, by the names directly inside it."""
    if "in_layers" in words:
        return "resnets"
    if "transformer_blocks" in words:
        return "attentions"
    return "downsamplers" if "op" in words else "upsamplers" if "conv" in words else None


def _scaled(theirs: str, ours: str, kinds: Mapping[str, str]) -> dict[str, str]:
    """The way down or up: a row of layers a level, the last of them with, or followed by, a change of scale."""
    rows: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for block, kind in kinds.items():
        if block.startswith(theirs):
            rows[int(block.split(".")[1])][block] = kind
    names: dict[str, str] = {}
    level = layer = 0
    for number in sorted(rows):
        row = rows[number]
        names |= {b: f"{ours}.{level}.{kind}.{0 if kind.endswith('samplers') else layer}" for b, kind in row.items()}
        ends = any(kind.endswith("samplers") for kind in row.values())
        level, layer = (level + 1, 0) if ends else (level, layer + 1)
    return names


def _mid(kinds: Mapping[str, str]) -> dict[str, str]:
    """`middle_block.0`, `.1`, `.2`: a residual block, attention, another residual block."""
    names: dict[str, str] = {}
    seen: defaultdict[str, int] = defaultdict(int)
    for block in sorted(block for block in kinds if block.startswith("middle_block")):
        names[block] = f"mid_block.{kinds[block]}.{seen[kinds[block]]}"
        seen[kinds[block]] += 1
    return names


def _open_clip(tensor: TensorInfo, component: str, key: str) -> Iterator[Part]:
    if key in _OPEN_PLAIN:
        yield from _whole(tensor, component, f"text_model.{_OPEN_PLAIN[key]}")
    elif found := _FUSED.fullmatch(key):
        yield from _thirds(tensor, f"{component}.text_model.encoder.layers.{found[1]}.self_attn", found[2])
    elif (found := _RESBLOCK.fullmatch(key)) and found[2] in _OPEN_LAYER:
        layer = f"text_model.encoder.layers.{found[1]}.{_OPEN_LAYER[found[2]]}"
        yield from _whole(tensor, component, f"{layer}.{found[3]}")


def _thirds(tensor: TensorInfo, module: str, leaf: str) -> Iterator[Part]:
    rows, size = tensor.shape[0] if tensor.shape else 0, tensor.stop - tensor.start
    if rows % 3:
        return
    for index, part in enumerate("qkv"):
        start = tensor.start + index * (size // 3)
        name = ParamName(f"{module}.{part}_proj.{leaf}")
        yield Part(name, tensor, (rows // 3, *tensor.shape[1:]), start, start + size // 3)
