"""Somebody else's erasure, opened: whole weights or an adapter, each as what it makes of our parameters.

    a pipeline folder                       unet/ or transformer/, text encoders; diffusers' layout
    a folder of one component               diffusion_pytorch_model.safetensors, with or without an index
    a PEFT folder                           adapter_config.json, adapter_model.safetensors
    a folder with pytorch_lora_weights.safetensors
    one file                                a CompVis checkpoint (model.diffusion_model.…), a transformer's in its
                                            authors' names, a state dict with diffusers' names, whole or partial, with
                                            or without `unet.`; an adapter

ESD, UCE, MACE, SPEED and Concept Ablation save whole weights, of the touched layers or of all; SPM saves an adapter.
What a file lacks is unchanged. Nothing is computed here: values are read when they are asked for, one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from rasura.patches._io.byte_ranges import read_whole
from rasura.patches._io.safetensors_file import TensorInfo, torch_dtype
from rasura.patches._io.tensor_bytes import DTYPES
from rasura.patches.errors import NotFoundError, UnsupportedHostError
from rasura.patches.foreign.adapter_names import is_adapter_file
from rasura.patches.foreign.adapters import PEFT_CONFIG, open_adapter, read_peft_config
from rasura.patches.foreign.foreign import _SHOWN, WEIGHTS, Foreign, ForeignTensor, refuse_unknown
from rasura.patches.foreign.tensor_source import PICKLES, SAFE, TensorSource, open_source
from rasura.patches.hosts.disk.layouts.compvis_names import Part
from rasura.patches.hosts.disk.layouts.diffusers_layout import FLOATS, Layout, find_component_layout, find_layout
from rasura.patches.hosts.disk.layouts.single_names import SingleNames, read_names
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.hosts.interface import COMPONENTS, ParameterInfo, name_parameter
from rasura.patches.types import ParamName

__all__ = ["open_foreign"]

_COMPVIS: Final = "model.diffusion_model."
_LORA_FILE: Final = "pytorch_lora_weights.safetensors"
_PEFT_FILES: Final = ("adapter_model.safetensors", "adapter_model.bin")


def open_foreign(path: Path, infos: Mapping[ParamName, ParameterInfo]) -> Foreign:
    """Open what somebody else made of a base with these parameters.

    Raises:
        NotFoundError: nothing is there.
        UnsupportedHostError: no weights or adapter in a spelling that is known, or of another model.
        FormatError: a file that breaks its format.
    """
    if path.is_dir():
        return _open_folder(path, infos)
    if not path.exists():
        raise NotFoundError(f"expected a file or folder at {path}, got nothing", hint="rasura adopt FILE")
    source = open_source(path)
    if is_adapter_file(source.infos):
        return open_adapter(source, infos, read_peft_config(path.parent) if path.name in _PEFT_FILES else None)
    return _state(source, infos)


def _open_folder(folder: Path, infos: Mapping[ParamName, ParameterInfo]) -> Foreign:
    if (folder / PEFT_CONFIG).is_file():
        file = next((folder / name for name in _PEFT_FILES if (folder / name).is_file()), None)
        if file is None:
            raise NotFoundError(f"{folder}: expected {' or '.join(_PEFT_FILES)} beside {PEFT_CONFIG}, got neither")
        return open_adapter(open_source(file), infos, read_peft_config(folder))
    if (folder / _LORA_FILE).is_file():
        return open_adapter(open_source(folder / _LORA_FILE), infos, None)
    if any((folder / component).is_dir() for component in COMPONENTS):
        return _layout(folder, folder, find_layout(folder), infos)
    files = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (*SAFE, *PICKLES))
    if any(name.startswith("diffusion_pytorch_model") for name in files):
        return _layout(folder, folder.parent, find_component_layout(folder, _denoiser(infos)), infos)
    raise UnsupportedHostError(
        f"{folder}: expected a pipeline, a UNet or an adapter, got {', '.join(files[:_SHOWN]) or 'no weights'}",
        hint="give the one file that holds the erasure",
    )


def _denoiser(infos: Iterable[ParamName]) -> str:
    return "transformer" if any(name.startswith("transformer.") for name in infos) else "unet"


def _layout(what: Path, root: Path, layout: Layout, infos: Mapping[ParamName, ParameterInfo]) -> Foreign:
    refuse_unknown(str(what), [name for name in layout.places if name not in infos], len(layout.places))

    def reader(name: ParamName) -> Callable[[], torch.Tensor]:
        return lambda: _read_place(root, layout, name)

    return Foreign(
        str(what),
        WEIGHTS,
        {name: ForeignTensor(place.info.dtype, reader(name)) for name, place in layout.places.items()},
    )


def _read_place(root: Path, layout: Layout, name: ParamName) -> torch.Tensor:
    place = layout.places[name]
    with WeightFiles(root, layout.files) as files:
        data = read_whole(files.descriptor(place.file), place.start, place.stop)
    return torch.frombuffer(data, dtype=torch_dtype(place.info.dtype)).reshape(place.info.shape)


def _state(source: TensorSource, infos: Mapping[ParamName, ParameterInfo]) -> Foreign:
    """Whole weights under CompVis', a transformer's authors' or diffusers' names."""
    floats = [info for info in source.infos.values() if info.dtype in FLOATS]
    names = read_names(floats)
    if names.native or any(info.name.startswith(_COMPVIS) for info in floats):
        _refuse_mixed(source.what, names)
        return Foreign(source.what, WEIGHTS, dict(_in_parts(source, names.parts, infos)))
    found: dict[ParamName, ForeignTensor] = {}
    lost: list[str] = []
    for info in floats:
        name = _named(info.name, infos)
        if name is None:
            lost.append(info.name)
        else:
            found[name] = ForeignTensor(info.dtype, _whole(source, info, infos[name].shape))
    refuse_unknown(source.what, lost, len(floats))
    return Foreign(source.what, WEIGHTS, found)


def _named(key: str, infos: Mapping[ParamName, ParameterInfo]) -> ParamName | None:
    component, _, rest = key.partition(".")
    choices = [name_parameter(component, rest)] if component in COMPONENTS else []
    choices += [name_parameter(each, key) for each in COMPONENTS]
    return next((name for name in choices if name in infos), None)


def _refuse_mixed(what: str, names: SingleNames) -> None:
    """Refuse native weights of which some could not be compared: what they change would be left out in silence."""
    if names.native and names.unmatched:
        name, held = next(iter(names.unmatched.items()))
        raise UnsupportedHostError(
            f"{what}: expected whole weights that can be compared with the base, got {name} in {held}",
            hint="diffusers' from_single_file(FILE).save_pretrained(DIR), and rasura adopt DIR",
        )


def _in_parts(
    source: TensorSource, parts: Sequence[Part], infos: Mapping[ParamName, ParameterInfo]
) -> Iterable[tuple[ParamName, ForeignTensor]]:
    lost: list[str] = []
    for part in parts:
        if part.name not in infos:
            lost.append(part.tensor.name)
            continue
        size = DTYPES[part.tensor.dtype][1]
        start, stop = ((at - part.tensor.start) // size for at in (part.start, part.stop))
        yield part.name, ForeignTensor(part.tensor.dtype, _slice(source, part.tensor, infos[part.name], start, stop))
    refuse_unknown(source.what, lost, len(parts))


def _whole(source: TensorSource, info: TensorInfo, shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    return lambda: _shaped(source.read(info.name), shape, source.what, info.name)


def _slice(
    source: TensorSource, tensor: TensorInfo, info: ParameterInfo, start: int, stop: int
) -> Callable[[], torch.Tensor]:
    return lambda: _shaped(source.read(tensor.name).flatten()[start:stop], info.shape, source.what, tensor.name)


def _shaped(values: torch.Tensor, shape: tuple[int, ...], what: str, name: str) -> torch.Tensor:
    """The values in the base's shape: a 1 × 1 convolution and a linear layer of the same numbers are the same."""
    if values.numel() != math.prod(shape) or (values.dim() > 1 and tuple(values.shape[:2]) != shape[:2]):
        raise UnsupportedHostError(
            f"{what}: {name}: expected shape {list(shape)}, as in the base, got {list(values.shape)}: it was made from "
            "another model",
            hint="rasura base list",
        )
    return values.reshape(shape)
