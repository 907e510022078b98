"""LoRA, PEFT and SPM adapters as ΔW: their factors, and the scales that programs keep beside them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from rasura.patches._io import canonical_json
from rasura.patches._io.files import read_regular
from rasura.patches.errors import FormatError, InputError, UnsupportedHostError
from rasura.patches.foreign.adapter_names import pair_up, resolve_stems
from rasura.patches.foreign.foreign import ADAPTER, Foreign, ForeignTensor
from rasura.patches.foreign.tensor_source import TensorSource
from rasura.patches.hosts.disk.layouts.diffusers_layout import FLOATS
from rasura.patches.hosts.interface import COMPONENTS, ParameterInfo
from rasura.patches.types import ParamName

__all__ = ["PEFT_CONFIG", "open_adapter", "read_peft_config"]

PEFT_CONFIG: Final = "adapter_config.json"
_CONFIG_LIMIT: Final = 1 << 20
_MATRIX: Final = 2
_MODULE: Final = re.compile(r"[A-Za-z0-9_.]+")
_DIFFUSERS_METADATA: Final = "lora_adapter_metadata"


def open_adapter(
    source: TensorSource, infos: Mapping[ParamName, ParameterInfo], config: Mapping[str, Any] | None
) -> Foreign:
    """An adapter's pairs of factors as ΔW of our parameters; nothing is read yet but scales.

    Raises:
        UnsupportedHostError: factors of another model, or no numbers that a product could be made of.
        FormatError: a scale that is none.
    """
    pairs = pair_up(source.infos, source.what)
    names = resolve_stems(pairs, infos, source.what)
    scales = _PeftScales.of(source, config)
    found: dict[ParamName, ForeignTensor] = {}
    for stem, rows in names.items():
        pair = pairs[stem]
        for part in (pair.down, pair.up):
            if source.infos[part].dtype not in FLOATS:
                raise UnsupportedHostError(
                    f"{source.what}: {part}: expected numbers of {', '.join(sorted(FLOATS))}, got "
                    f"{source.infos[part].dtype}",
                )
        dtype = source.infos[pair.down].dtype
        scale = _scale(source, pair.alpha, scales, stem, pair.down)
        for index, name in enumerate(rows):
            own = _Part(infos[name], index, len(rows))
            _check_factors(source, pair.down, pair.up, own)
            found[name] = ForeignTensor(dtype, _product(source, pair.down, pair.up, own, scale))
    known = (
        any(pair.alpha for pair in pairs.values())
        or scales.known
        or not any(s.startswith("base_model.") for s in pairs)
    )
    return Foreign(source.what, ADAPTER, found, scaled=known)


@dataclass(frozen=True, slots=True)
class _Part:
    """A parameter, and which of so many parts of the rows of a matrix it is."""

    info: ParameterInfo
    index: int
    parts: int


def _check_factors(source: TensorSource, down: str, up: str, part: _Part) -> None:
    """Refuse factors whose product is no change of this parameter, before anything is read."""
    info = part.info
    a, b = source.infos[down].shape, source.infos[up].shape
    fits = len(a) >= _MATRIX and len(b) >= _MATRIX and a[0] == b[1] and a[0] > 0 and math.prod(b[2:]) == 1
    if not fits or b[0] != part.parts * info.shape[0] or math.prod(a[1:]) != math.prod(info.shape[1:]):
        raise UnsupportedHostError(
            f"{source.what}: {down}: expected factors of {info.name} {list(info.shape)}, got {list(a)} and {list(b)}: "
            "it was made for another model",
            hint="rasura base list",
        )


def _product(source: TensorSource, down: str, up: str, part: _Part, scale: float) -> Callable[[], torch.Tensor]:
    def value() -> torch.Tensor:
        a = source.read(down).to(torch.float64)
        b = source.read(up).to(torch.float64).chunk(part.parts)[part.index]
        return (scale * (b.flatten(1) @ a.flatten(1))).reshape(part.info.shape)

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


def read_peft_config(folder: Path) -> Mapping[str, Any] | None:
    """The configuration beside a PEFT adapter; None where there is none."""
    file = folder / PEFT_CONFIG
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
