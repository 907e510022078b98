"""Somebody else's erasure, opened: whole weights or an adapter, each as what it makes of our parameters.

    a pipeline folder                       unet/ or transformer/, text encoders; diffusers' layout
    a folder of one component               diffusion_pytorch_model.safetensors, with or without an index
    a PEFT folder                           adapter_config.json, adapter_model.safetensors
    a folder with pytorch_lora_weights.safetensors
    one file                                a CompVis checkpoint (model.diffusion_model.…), a state dict with diffusers'
                                            names, whole or partial, with or without `unet.`; an adapter

ESD, UCE, MACE, SPEED and Concept Ablation save whole weights, of the touched layers or of all; SPM saves an adapter.
What a file lacks is unchanged. Nothing is computed here: values are read when they are asked for, one at a time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from rasura.patches._io import canonical_json
from rasura.patches._io.byte_ranges import read_whole
from rasura.patches._io.files import read_regular
from rasura.patches._io.safetensors_file import TensorInfo, torch_dtype
from rasura.patches._io.tensor_bytes import DTYPES
from rasura.patches.errors import FormatError, InputError, NotFoundError, UnsupportedHostError
from rasura.patches.foreign.adapter_names import is_adapter, pair_up, resolve
from rasura.patches.foreign.tensor_source import PICKLES, SAFE, TensorSource, open_source
from rasura.patches.hosts.disk.compvis_names import parts
from rasura.patches.hosts.disk.diffusers_layout import FLOATS, Layout, find_component_layout, find_layout
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.hosts.interface import COMPONENTS, ParameterInfo, name_parameter
from rasura.patches.types import ParamName

__all__ = ["ADAPTER", "WEIGHTS", "Foreign", "ForeignTensor", "open_foreign"]

WEIGHTS: Final = "weights"
ADAPTER: Final = "adapter"
_COMPVIS: Final = "model.diffusion_model."
_LORA_FILE: Final = "pytorch_lora_weights.safetensors"
_PEFT_CONFIG: Final = "adapter_config.json"
_PEFT_FILES: Final = ("adapter_model.safetensors", "adapter_model.bin")
_CONFIG_LIMIT: Final = 1 << 20
_SHOWN: Final = 4
_MATRIX: Final = 2
_MODULE: Final = re.compile(r"[A-Za-z0-9_.]+")
_DIFFUSERS_METADATA: Final = "lora_adapter_metadata"


@dataclass(frozen=True, slots=True, eq=False)
class ForeignTensor:
    """What a file says of one of our parameters.

    Attributes:
        dtype: of the numbers in the file, in safetensors' spelling.
        value: reads it: whole weights in their own type, or of an adapter ΔW in float64; in the parameter's shape.
    """

    dtype: str
    value: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A file or folder that somebody else made.

    Attributes:
        what: its path, for messages.
        form: `WEIGHTS` or `ADAPTER`.
        tensors: by our names.
        scaled: whether an adapter's scale is known from the file; if not, it was taken as 1.
    """

    what: str
    form: str
    tensors: Mapping[ParamName, ForeignTensor]
    scaled: bool = True


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
    if is_adapter(source.infos):
        return _adapter(source, infos, _peft_config(path.parent) if path.name in _PEFT_FILES else None)
    return _state(source, infos)


def _open_folder(folder: Path, infos: Mapping[ParamName, ParameterInfo]) -> Foreign:
    if (folder / _PEFT_CONFIG).is_file():
        file = next((folder / name for name in _PEFT_FILES if (folder / name).is_file()), None)
        if file is None:
            raise NotFoundError(f"{folder}: expected {' or '.join(_PEFT_FILES)} beside {_PEFT_CONFIG}, got neither")
        return _adapter(open_source(file), infos, _peft_config(folder))
    if (folder / _LORA_FILE).is_file():
        return _adapter(open_source(folder / _LORA_FILE), infos, None)
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
    _refuse_unknown(str(what), [name for name in layout.places if name not in infos], len(layout.places))

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
    """Whole weights under CompVis' or diffusers' names."""
    floats = [info for info in source.infos.values() if info.dtype in FLOATS]
    if any(info.name.startswith(_COMPVIS) for info in floats):
        return Foreign(source.what, WEIGHTS, dict(_compvis(source, floats, infos)))
    found: dict[ParamName, ForeignTensor] = {}
    lost: list[str] = []
    for info in floats:
        name = _named(info.name, infos)
        if name is None:
            lost.append(info.name)
        else:
            found[name] = ForeignTensor(info.dtype, _whole(source, info, infos[name].shape))
    _refuse_unknown(source.what, lost, len(floats))
    return Foreign(source.what, WEIGHTS, found)


def _named(key: str, infos: Mapping[ParamName, ParameterInfo]) -> ParamName | None:
    component, _, rest = key.partition(".")
    choices = [name_parameter(component, rest)] if component in COMPONENTS else []
    choices += [name_parameter(each, key) for each in COMPONENTS]
    return next((name for name in choices if name in infos), None)


def _compvis(
    source: TensorSource, floats: list[TensorInfo], infos: Mapping[ParamName, ParameterInfo]
) -> Iterable[tuple[ParamName, ForeignTensor]]:
    lost: list[str] = []
    total = 0
    for part in parts(floats):
        total += 1
        if part.name not in infos:
            lost.append(part.tensor.name)
            continue
        size = DTYPES[part.tensor.dtype][1]
        start, stop = ((at - part.tensor.start) // size for at in (part.start, part.stop))
        yield part.name, ForeignTensor(part.tensor.dtype, _slice(source, part.tensor, infos[part.name], start, stop))
    _refuse_unknown(source.what, lost, total)


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


def _refuse_unknown(what: str, lost: list[str] | list[ParamName], total: int) -> None:
    if lost or not total:
        names = ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        raise UnsupportedHostError(
            f"{what}: expected parameters of the base, got {len(lost)} of {total} that it does not have"
            + (f": {names}" if lost else ""),
            hint="rasura base list",
            names=list(lost[:100]),
        )


def _adapter(
    source: TensorSource, infos: Mapping[ParamName, ParameterInfo], config: Mapping[str, Any] | None
) -> Foreign:
    pairs = pair_up(source.infos, source.what)
    names = resolve(pairs, infos, source.what)
    scales = _PeftScales.of(source, config)
    found: dict[ParamName, ForeignTensor] = {}
    for stem, name in names.items():
        pair = pairs[stem]
        for part in (pair.down, pair.up):
            if source.infos[part].dtype not in FLOATS:
                raise UnsupportedHostError(
                    f"{source.what}: {part}: expected numbers of {', '.join(sorted(FLOATS))}, got "
                    f"{source.infos[part].dtype}",
                )
        _check_factors(source, pair.down, pair.up, infos[name])
        dtype = source.infos[pair.down].dtype
        found[name] = ForeignTensor(
            dtype,
            _product(
                source, pair.down, pair.up, infos[name].shape, _scale(source, pair.alpha, scales, stem, pair.down)
            ),
        )
    known = (
        any(pair.alpha for pair in pairs.values())
        or scales.known
        or not any(s.startswith("base_model.") for s in pairs)
    )
    return Foreign(source.what, ADAPTER, found, scaled=known)


def _check_factors(source: TensorSource, down: str, up: str, info: ParameterInfo) -> None:
    """Refuse factors whose product is no change of this parameter, before anything is read."""
    a, b = source.infos[down].shape, source.infos[up].shape
    fits = len(a) >= _MATRIX and len(b) >= _MATRIX and a[0] == b[1] and a[0] > 0 and math.prod(b[2:]) == 1
    if not fits or b[0] != info.shape[0] or math.prod(a[1:]) != math.prod(info.shape[1:]):
        raise UnsupportedHostError(
            f"{source.what}: {down}: expected factors of {info.name} {list(info.shape)}, got {list(a)} and {list(b)}: "
            "it was made for another model",
            hint="rasura base list",
        )


def _product(
    source: TensorSource, down: str, up: str, shape: tuple[int, ...], scale: float
) -> Callable[[], torch.Tensor]:
    def value() -> torch.Tensor:
        a = source.read(down).to(torch.float64)
        b = source.read(up).to(torch.float64)
        return (scale * (b.flatten(1) @ a.flatten(1))).reshape(shape)

    return value


def _scale(source: TensorSource, alpha: str, scales: _PeftScales, stem: str, down: str) -> float:
    rank = source.infos[down].shape[0]
    if not alpha:
        return scales.of_module(stem, rank)
    values = source.read(alpha).flatten()
    if values.numel() != 1:
        raise FormatError(f"{source.what}: {alpha}: expected one number, got {values.numel()}")
    return float(values[0]) / rank


@dataclass(frozen=True, slots=True)
class _PeftScales:
    """Alpha and rank as PEFT's configuration has them; without one, diffusers' rule: the scale is 1."""

    known: bool
    alpha: float = 0.0
    alphas: tuple[tuple[str, float], ...] = ()
    root: bool = False

    @classmethod
    def of(cls, source: TensorSource, config: Mapping[str, Any] | None) -> _PeftScales:
        if config is None and (text := source.metadata.get(_DIFFUSERS_METADATA)):
            config = _unprefixed(text, source.what)
        if config is None:
            return cls(known=False)
        if config.get("use_dora") or config.get("fan_in_fan_out") or config.get("bias", "none") != "none":
            raise UnsupportedHostError(
                f"{source.what}: expected a plain LoRA, got DoRA, trained biases or transposed layers",
                hint="merge the adapter into the model with PEFT, and adopt that model",
            )
        alpha, alphas = config.get("lora_alpha"), config.get("alpha_pattern") or {}
        numbers = _number(alpha) and isinstance(alphas, dict) and all(map(_number, alphas.values()))
        if alpha is None or not numbers:
            raise FormatError(f"{source.what}: expected lora_alpha, a number, in its configuration, got {alpha!r}")
        named = tuple((_plain_pattern(str(k), source.what), float(v)) for k, v in alphas.items())
        return cls(known=True, alpha=float(alpha), alphas=named, root=bool(config.get("use_rslora")))

    def of_module(self, stem: str, rank: int) -> float:
        """α/r of a module, or α/√r."""
        if not self.known:
            return 1.0
        module = stem.removeprefix("base_model.model.")
        own = (value for name, value in self.alphas if module == name or module.endswith(f".{name}"))
        return next(own, self.alpha) / (math.sqrt(rank) if self.root else rank)


def _plain_pattern(pattern: str, what: str) -> str:
    """A module's name out of a pattern that only anchors and escapes it; any other is not run."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not _MODULE.fullmatch(name):
        raise UnsupportedHostError(
            f"{what}: expected module names in its alpha_pattern, got the pattern {pattern[:60]!r}",
            hint="merge the adapter into the model with PEFT, and adopt that model",
        )
    return name


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unprefixed(text: str, what: str) -> Mapping[str, Any]:
    """Diffusers' `{"unet.r": 4, …}` without the component."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{what}: expected JSON in its metadata {_DIFFUSERS_METADATA}, got something else") from None
    if not isinstance(found, dict):
        raise FormatError(f"{what}: expected an object in its metadata {_DIFFUSERS_METADATA}")
    settings: dict[str, Any] = {}
    for key, value in found.items():
        component, _, name = str(key).partition(".")
        if component not in COMPONENTS:
            name = str(key)
        if settings.setdefault(name, value) != value and name in {"lora_alpha", "use_rslora", "alpha_pattern"}:
            raise UnsupportedHostError(f"{what}: expected one {name} for all components, got several")
    return settings


def _peft_config(folder: Path) -> Mapping[str, Any] | None:
    """The configuration beside a PEFT adapter; None where there is none."""
    file = folder / _PEFT_CONFIG
    if not file.is_file():
        return None
    data = read_regular(file.resolve(), _CONFIG_LIMIT)
    found = canonical_json.parse(data, what=str(file), limit=_CONFIG_LIMIT, floats=True)
    if not isinstance(found, dict):
        raise FormatError(f"{file}: expected a JSON object")
    if found.get("peft_type", "LORA") != "LORA":
        raise InputError(
            f"{file}: expected peft_type LORA, got {str(found.get('peft_type'))[:40]!r}",
            hint="merge the adapter into the model with PEFT, and adopt that model",
        )
    return found
