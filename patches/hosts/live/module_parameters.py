"""The parameters of live modules under the names that checkpoints give them, whatever has been wrapped around them."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from rasura.patches._io.tensor_bytes import DTYPES
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.disk.layouts.diffusers_layout import FLOATS
from rasura.patches.hosts.interface import name_parameter
from rasura.patches.hosts.live.offload import find_stored
from rasura.patches.types import ParamName

__all__ = [
    "FLOAT_TYPES",
    "LiveParameter",
    "find_live_parameters",
    "find_unsaved",
    "is_peft_class",
    "is_peft_layer",
    "iterate_tensors",
    "part_of",
    "refuse_replaced",
    "unwrap",
]

FLOAT_TYPES: Final = frozenset(getattr(torch, DTYPES[name][0]) for name in FLOATS)
"""The torch dtypes that a patch can be added to."""


@dataclass(frozen=True, slots=True)
class LiveParameter:
    """A parameter and where it hangs."""

    name: ParamName
    tensor: torch.Tensor
    """Where its numbers are: on the module, or in the hook that offloads it."""
    ancestors: tuple[tuple[str, nn.Module], ...]
    """From the component down to the module that owns the parameter, each with its own short name."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A module in a component's tree; a module that hangs in two places is two of these."""

    key: str
    plain: str | None
    """The key without what wrappers put into it; None inside a wrapper that brought its own parameters."""
    module: nn.Module
    ancestors: tuple[tuple[str, nn.Module], ...]

    def keyed(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name

    def plainly(self, name: str) -> str:
        return f"{self.plain}.{name}" if self.plain else name


def find_live_parameters(components: Mapping[str, nn.Module]) -> Iterator[LiveParameter]:
    """All parameters of the model itself, tied ones under each of their names, and the buffers that are saved.

    A checkpoint does not tell one from the other: SD3's position embedding is a buffer and lies among the weights.
    """
    for component, module in components.items():
        places = [place for place in _places(module) if place.plain is not None]
        every = [(place, *each) for place in places for each in place.module._parameters.items()]  # noqa: SLF001
        for place, key, tensor in [*every, *_saved_buffers(places)]:
            if tensor is not None:  # a layer made without bias has None there
                name, true = name_parameter(component, place.plainly(key)), _true(tensor, key, place.ancestors)
                yield LiveParameter(name, true, place.ancestors)


def _places(component: nn.Module) -> list[_Place]:
    """All modules, each before those below it. Torch's own ways down take ten times as long for a large model."""
    found: list[_Place] = []

    def walk(key: str, parts: tuple[str, ...], adapted: bool, ancestors: tuple[tuple[str, nn.Module], ...]) -> None:
        module = ancestors[-1][1]
        adapted = adapted or is_peft_layer(module)
        found.append(_Place(key, _plain(parts, adapted=adapted), module, ancestors))
        for name, child in module._modules.items():  # noqa: SLF001
            if child is not None:
                below = (*parts, *name.split("."))
                walk(f"{key}.{name}" if key else name, below, adapted, (*ancestors, (name, child)))

    walk("", (), False, (("", component),))  # noqa: FBT003
    return found


def _plain(parts: tuple[str, ...], *, adapted: bool) -> str | None:
    if adapted and "base_layer" not in parts:  # PEFT's own parameters; those that it wraps lie below `base_layer`
        return None
    dropped = ("_orig_mod", "base_layer") if adapted else ("_orig_mod",)  # torch.compile's wrapper; PEFT's
    return ".".join(part for part in parts if part not in dropped)


def find_unsaved(components: Mapping[str, nn.Module]) -> frozenset[ParamName]:
    """Second names of tied parameters, which transformers leaves out of the files that it writes."""
    found: set[ParamName] = set()
    for component, module in components.items():
        # transformers 5 maps second names to first ones on the module; before, the class listed them.
        tied = getattr(module, "all_tied_weights_keys", None) or getattr(module, "_tied_weights_keys", None) or ()
        owners = dict(module.named_parameters())  # every tensor under one name, the first
        every = dict(module.named_parameters(remove_duplicate=False))
        # Only what is tied in fact: some configurations untie what their class lists. Offloaded, both names are meta.
        twins = [key for key in tied if key in every and (key not in owners or every[key].is_meta)]
        found.update(name_parameter(component, key) for key in twins)
    return frozenset(found)


def _saved_buffers(places: Iterable[_Place]) -> Iterator[tuple[_Place, str, torch.Tensor | None]]:
    for place in _once(places):
        for key, buffer in place.module._buffers.items():  # noqa: SLF001
            if key not in place.module._non_persistent_buffers_set:  # noqa: SLF001  # torch has no public name for it
                yield place, key, buffer


def _once(places: Iterable[_Place]) -> Iterator[_Place]:
    """Each module where it is first."""
    seen: set[int] = set()
    for place in places:
        # One module may hang in two places: its buffers would be listed twice.
        if id(place.module) not in seen:
            seen.add(id(place.module))
            yield place


def find_live_modules(
    components: Mapping[str, nn.Module],
) -> Iterator[tuple[ParamName, nn.Module, tuple[tuple[str, nn.Module], ...]]]:
    """All modules under the name that their weight has or would have, each with the modules above it and itself."""
    for component, module in components.items():
        for place in _once(_places(module)):
            if place.plain is not None:
                yield name_parameter(component, place.plainly("weight")), place.module, place.ancestors


def iterate_tensors(
    components: Mapping[str, nn.Module], live: Iterable[LiveParameter]
) -> dict[ParamName, torch.Tensor]:
    """All parameters, adapters and buffers, each name once; `live` are the `live_parameters`."""
    found: dict[ParamName, torch.Tensor] = {each.name: each.tensor for each in live}
    for component, module in components.items():
        for place in _places(module):
            adapters = place.module._parameters if place.plain is None else {}  # noqa: SLF001
            for key, tensor in [*adapters.items(), *place.module._buffers.items()]:  # noqa: SLF001
                if tensor is not None:
                    found[ParamName(f"{component}.{place.keyed(key)}")] = tensor
    return found


def _true(tensor: torch.Tensor, key: str, ancestors: tuple[tuple[str, nn.Module], ...]) -> torch.Tensor:
    """The tensor that the next forward reads: for what accelerate has put aside, the one that lies in its hook."""
    if not tensor.is_meta:
        return tensor
    found = find_stored(key, ancestors)
    # another shape: it is not that parameter's
    return tensor if found is None or found.shape != tensor.shape else found


def is_peft_layer(module: nn.Module) -> bool:
    """Whether this is PEFT's wrapper around a layer; told by name, because PEFT need not be installed."""
    kind: Any = type(module)  # mypy takes a class of modules for unhashable
    return is_peft_class(kind)


@functools.lru_cache(maxsize=1024)  # a model has thousands of modules, of a few dozen classes
def is_peft_class(kind: type[nn.Module]) -> bool:
    """Whether modules of this class are PEFT's wrappers."""
    return any(c.__name__ == "BaseTunerLayer" and c.__module__.startswith("peft.") for c in kind.__mro__)


def unwrap(module: nn.Module) -> nn.Module:
    """The module behind `torch.compile`'s wrapper."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def part_of(model: object) -> str:
    """Which part of a pipeline a lone module is.

    Raises:
        UnsupportedHostError: none that its class name tells.
    """
    kind = type(unwrap(model)).__name__ if isinstance(model, nn.Module) else ""
    for word, part in (("UNet", "unet"), ("Transformer", "transformer"), ("CLIPText", "text_encoder")):
        if word in kind:
            return part
    raise UnsupportedHostError(
        f"expected a diffusers pipeline, a UNet, a transformer or a CLIP text encoder, got {type(model).__name__}",
        hint="rasura.attach(pipe), or rasura.attach(pipe.unet)",
    )


def refuse_replaced(source: object, components: Mapping[str, nn.Module]) -> None:
    """Refuse a pipeline that draws with other modules by now: what is written to these, it would not see.

    Args:
        source: the pipeline, or whatever else has these under their names, or nothing.
        components: the modules as they were found there, without wrappers.

    Raises:
        UnsupportedHostError: naming one that was replaced.
    """
    for name, module in components.items():
        present = getattr(source, name, module)
        if present is None and name.startswith("text_encoder"):
            continue  # let go of to save memory, once prompts are encoded
        if not isinstance(present, nn.Module) or unwrap(present) is not module:
            raise UnsupportedHostError(
                f"expected the {name} that was attached, got another one in its place",
                hint="model.detach(); model = rasura.attach(pipe)",
            )
