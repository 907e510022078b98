"""Single files of a transformer in its authors' spelling, made of the tensors of a diffusers folder.

    file = native_file(tiny_of(tmp_path / "model", "Z-Image"), tmp_path / "z.safetensors", prefix="model.diffusion_model.")

Names come from the product's table; that they are right is for diffusers' own converters to say, in
`tests/interop/test_spellings.py`.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rasura.patches.format.spellings.catalogue import SPELLINGS
from rasura.patches.format.spellings.spelling import Spelling

_IN_ONE_ROW = ".mod.lin"
"""Krea 2's, of which diffusers makes six rows."""
__all__ = ["native_file", "to_native", "transformer_of"]


def transformer_of(folder: Path, component: str = "transformer") -> dict[str, torch.Tensor]:
    """All tensors of a denoiser, by diffusers' names."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted((folder / component).glob("*.safetensors")):
        found |= {key: tensor.clone() for key, tensor in load_file(file).items()}  # a file is patched in place
    return found


def native_file(
    model: Path,
    file: Path,
    family: str,
    *,
    prefix: str = "",
    component: str = "transformer",
    more: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """One file of a folder's denoiser in the family's spelling, and of whatever else is to be in it."""
    native = to_native(SPELLINGS[family], transformer_of(model, component))
    save_file({**{prefix + key: tensor for key, tensor in native.items()}, **(more or {})}, file, {"format": "pt"})
    return file


def to_native(spelling: Spelling, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A denoiser's tensors by their native names, those that are rows of one matrix put together."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if (native := spelling.write(name)) is not None:
            flat = native.endswith(_IN_ONE_ROW)
            found[native] = tensor.flatten() if flat else tensor.contiguous()
        elif (holder := spelling.holder(name)) not in found:
            assert holder is not None, name
            ours = spelling.read(holder) or spelling.read_mixed(holder)
            parts = [state[each] for each in ours]
            found[holder] = torch.cat(parts) if len(parts) > 1 else _turned(name, tensor, state)
    return found


def _turned(name: str, tensor: torch.Tensor, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Scale and shift the other way round; of SD3's blocks only in the last, which has no feed-forward for the text."""
    block = ".".join(name.split(".")[:2])
    if any(key.startswith(f"{block}.ff_context.") for key in state):
        return tensor
    return torch.cat(tensor.chunk(2)[::-1])
