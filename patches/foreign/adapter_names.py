"""The names under which adapters keep their two factors, and which of our parameters each pair changes.

    unet.<module>.lora_A.weight, .lora_B.weight                  PEFT as diffusers writes it, and rasura
    base_model.model.<module>.lora_A.weight                      PEFT's own, with adapter_config.json beside it
    unet.<module>.lora.down.weight, .up.weight                   diffusers, older
    unet.<…attn2>.processor.to_k_lora.down.weight                diffusers, oldest
    text_encoder.<module>.lora_linear_layer.down.weight          diffusers, for text encoders
    lora_unet_<module_with_underscores>.lora_down.weight, .alpha kohya, and SPM, which has the same names
    diffusion_model.<module>.lora_A.weight or .lora_down.weight  a transformer's, in its authors' names, as kohya's are

Whatever else an adapter may hold (DoRA's magnitudes, LoHa, LoKr, biases, whole differences) is not ΔW = s·up·down, and
is named and refused: to leave it out would adopt something that nobody made. A native matrix that holds several of
ours, one after the other, gives each of them its rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.format.spellings.catalogue import find_spelling_of
from rasura.patches.hosts.interface import COMPONENTS, ParameterInfo, name_parameter
from rasura.patches.models.families import find_family
from rasura.patches.types import ParamName

__all__ = ["FactorPair", "is_adapter_file", "pair_up", "resolve_stems"]

_FACTOR: Final = re.compile(
    r"(?P<stem>.+?)(?:"
    r"\.lora_(?P<peft>[AB])(?:\.[A-Za-z0-9_-]+)?\.weight"
    r"|\.lora_(?P<kohya>down|up)\.weight"
    r"|\.lora\.(?P<old>down|up)\.weight"
    r"|\.lora_linear_layer\.(?P<text>down|up)\.weight"
    r"|_lora\.(?P<processor>down|up)\.weight"
    r"|\.(?P<alpha>alpha)"
    r")"
)
_OTHER: Final = re.compile(
    r"lora_magnitude_vector|dora_scale|\.hada_|\.lokr_|lora_mid|\.diff(?:_b)?$|lora_[AB].*\.bias$|oft_|boft_|glora|ia3_"
)
_DOWN: Final = frozenset({"A", "down"})
_PEFT: Final = "base_model.model."
_TRANSFORMER: Final = "transformer"
_WEIGHT: Final = ".weight"
_NATIVE: Final = "diffusion_model."
_OF_DENOISER: Final = "lora_unet_"
_KOHYA: Final = {
    _OF_DENOISER: ("unet", "transformer"),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_3",),
}
_PROCESSOR: Final = re.compile(r"(.+)\.processor\.(to_[qkv]|to_out)")
_SHOWN: Final = 4


@dataclass(slots=True)
class FactorPair:
    """The tensors of one module: names in the file; `alpha` is empty where there is none."""

    stem: str
    down: str = ""
    up: str = ""
    alpha: str = ""


@dataclass(frozen=True, slots=True)
class _Modules:
    """A host's modules with weights, by the spellings in which adapters write them."""

    exact: Mapping[str, ParamName] = field(default_factory=dict)
    flat: Mapping[str, ParamName] = field(default_factory=dict)
    native: Mapping[str, tuple[ParamName, ...]] = field(default_factory=dict)
    """By the names of a transformer's authors, and by these with underscores: a parameter, or those of its rows."""


def is_adapter_file(names: Iterable[str]) -> bool:
    """Whether any of these names is a factor's, or of another kind of adapter."""
    return any(_OTHER.search(name) or ((found := _FACTOR.fullmatch(name)) and not found["alpha"]) for name in names)


def pair_up(names: Iterable[str], what: str) -> dict[str, FactorPair]:
    """The pairs of factors of a file, by stem.

    Raises:
        UnsupportedHostError: a factor without its partner, two adapters in one file, or another kind of adapter.
    """
    pairs: dict[str, FactorPair] = {}
    odd: list[str] = []
    for name in names:
        found = _FACTOR.fullmatch(name)
        if found is None or _OTHER.search(name):
            odd.append(name)
            continue
        pair = pairs.setdefault(found["stem"], FactorPair(found["stem"]))
        side = next(group for group in found.groups()[1:] if group)
        part = "alpha" if side == "alpha" else "down" if side in _DOWN else "up"
        if getattr(pair, part):
            odd.append(name)
        setattr(pair, part, name)
    odd += [pair.stem for pair in pairs.values() if not (pair.down and pair.up)]
    if odd:
        raise UnsupportedHostError(
            f"{what}: expected pairs of down and up factors, each once, and nothing else, got {_named(odd)}: what they "
            "do is no product of two matrices",
            hint="merge the adapter into the model with the program that made it, and adopt that model",
            names=odd[:100],
        )
    return pairs


def resolve_stems(
    stems: Iterable[str], infos: Mapping[ParamName, ParameterInfo], what: str
) -> dict[str, tuple[ParamName, ...]]:
    """Which parameter of the host each stem changes, or which its rows change, one after the other.

    Raises:
        UnsupportedHostError: names that the host does not have, or two for one parameter.
    """
    modules = _modules(infos)
    found = {stem: _resolved(stem, modules) for stem in stems}
    if lost := [stem for stem, names in found.items() if not names]:
        raise UnsupportedHostError(
            f"{what}: expected the modules of the base, got {len(lost)} of {len(found)} that it does not have: "
            f"{_named(lost)}",
            hint="load the adapter with diffusers' load_lora_weights and write it with save_lora_weights",
            names=lost[:100],
        )
    counts = Counter(name for names in found.values() for name in names)
    if twice := sorted(stem for stem, names in found.items() if any(counts[name] > 1 for name in names)):
        raise UnsupportedHostError(f"{what}: expected one pair a module, got two for one: {_named(twice)}")
    return found


def _modules(infos: Mapping[ParamName, ParameterInfo]) -> _Modules:
    exact: dict[str, ParamName] = {}
    flat: dict[str, ParamName] = {}
    for name in infos:
        if name.endswith(".weight"):
            component, _, module = name.removesuffix(".weight").partition(".")
            exact[f"{component}.{module}"] = name
            flat[f"{component}_{module.replace('.', '_')}"] = name
    return _Modules(exact, flat, _native(infos))


def _native(infos: Mapping[ParamName, ParameterInfo]) -> dict[str, tuple[ParamName, ...]]:
    """The transformer's modules by native names."""
    family = find_family(infos)
    if family is None or (spelling := find_spelling_of(family.name, infos)) is None:
        return {}
    found: dict[str, tuple[ParamName, ...]] = {}
    for name in infos:
        component, _, ours = name.partition(".")
        if component == _TRANSFORMER and ours.endswith(_WEIGHT):
            native = spelling.write(ours) or spelling.holder(ours) or ""
            names = tuple(name_parameter(component, each) for each in spelling.read(native))
            if names and all(each in infos for each in names):
                module = native.removesuffix(_WEIGHT)
                found[module] = found[module.replace(".", "_")] = names
    return found


def _resolved(stem: str, modules: _Modules) -> tuple[ParamName, ...]:
    for prefix, components in _KOHYA.items():
        if stem.startswith(prefix):
            rest = stem.removeprefix(prefix)
            found = (modules.flat.get(f"{component}_{rest}") for component in components)
            if name := next((name for name in found if name), None):
                return (name,)
            return modules.native.get(rest, ()) if prefix == _OF_DENOISER else ()
    if stem.startswith(_NATIVE) and (names := modules.native.get(stem.removeprefix(_NATIVE), ())):
        return names
    name = _by_diffusers(stem, modules)
    return modules.native.get(stem, ()) if name is None else (name,)


def _by_diffusers(stem: str, modules: _Modules) -> ParamName | None:
    module = stem.removeprefix(_PEFT).replace(".base_layer", "")
    component = module.partition(".")[0]
    choices = [module] if component in COMPONENTS else [f"{each}.{module}" for each in COMPONENTS]
    for choice in choices:
        owner, _, inner = choice.partition(".")
        if oldest := _PROCESSOR.fullmatch(inner):
            inner = f"{oldest[1]}.{oldest[2]}" + (".0" if oldest[2] == "to_out" else "")
        if name := modules.exact.get(str(name_parameter(owner, inner))):
            return name
    return None


def _named(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
