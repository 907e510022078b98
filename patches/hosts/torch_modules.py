"""The parameters of live modules under the names that checkpoints give them, whatever has been wrapped around them."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts import parameter_name
from rasura.patches.hosts.layout import FLOATS
from rasura.patches.hosts.offload import stored
from rasura.patches.names import ParamName
from rasura.patches.tensors import DTYPES

__all__ = [
    "FLOAT_TYPES",
    "LiveParameter",
    "all_tensors",
    "is_adapter",
    "live_parameters",
    "part_of",
    "refuse_replaced",
    "unsaved",
    "unwrapped",
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


def live_parameters(components: Mapping[str, nn.Module]) -> Iterator[LiveParameter]:
    """All parameters of the model itself, tied ones under each of their names, and the buffers that are saved.

    A checkpoint does not tell one from the other: SD3's position embedding is a buffer and lies among the weights.
    """
    for component, module in components.items():
        for key, tensor in [*module.named_parameters(remove_duplicate=False), *_saved_buffers(module)]:
            ancestors = _ancestors(module, key)
            if (plain := _plain_key(key, ancestors)) is not None:
                yield LiveParameter(parameter_name(component, plain), _true(tensor, key, ancestors), ancestors)


def unsaved(components: Mapping[str, nn.Module]) -> frozenset[ParamName]:
    """Second names of tied parameters, which transformers leaves out of the files that it writes."""
    found: set[ParamName] = set()
    for component, module in components.items():
        tied = getattr(module, "all_tied_weights_keys", None) or getattr(module, "_tied_weights_keys", None) or ()
        owners = dict(module.named_parameters())  # every tensor under one name, the first
        every = dict(module.named_parameters(remove_duplicate=False))
        # Only what is tied in fact: some configurations untie what their class lists. Offloaded, both names are meta.
        twins = [key for key in tied if key in every and (key not in owners or every[key].is_meta)]
        found.update(parameter_name(component, key) for key in twins)
    return frozenset(found)


def _saved_buffers(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, owner in module.named_modules():
        for key, buffer in owner.named_buffers(recurse=False, remove_duplicate=False):
            if key not in owner._non_persistent_buffers_set:  # noqa: SLF001  # torch has no public name for it
                yield f"{prefix}.{key}" if prefix else key, buffer


def live_modules(
    components: Mapping[str, nn.Module],
) -> Iterator[tuple[ParamName, nn.Module, tuple[tuple[str, nn.Module], ...]]]:
    """All modules under the name that their weight has or would have, each with the modules above it and itself."""
    for component, module in components.items():
        for key, each in module.named_modules():
            ancestors = _ancestors(module, f"{key}.weight" if key else "weight")
            if (plain := _plain_key(f"{key}.weight" if key else "weight", ancestors)) is not None:
                yield parameter_name(component, plain), each, ancestors


def all_tensors(components: Mapping[str, nn.Module], live: Iterable[LiveParameter]) -> dict[ParamName, torch.Tensor]:
    """All parameters, adapters and buffers, each name once; `live` are the `live_parameters`."""
    found: dict[ParamName, torch.Tensor] = {each.name: each.tensor for each in live}
    for component, module in components.items():
        for key, parameter in module.named_parameters(remove_duplicate=False):
            if _plain_key(key, _ancestors(module, key)) is None:
                found[ParamName(f"{component}.{key}")] = parameter
        for key, buffer in module.named_buffers(remove_duplicate=False):
            found[ParamName(f"{component}.{key}")] = buffer
    return found


def _true(tensor: torch.Tensor, key: str, ancestors: tuple[tuple[str, nn.Module], ...]) -> torch.Tensor:
    """The tensor that the next forward reads: for what accelerate has put aside, the one that lies in its hook."""
    if not tensor.is_meta:
        return tensor
    found = stored(key.rpartition(".")[2], ancestors)
    return tensor if found is None or found.shape != tensor.shape else found


def is_adapter(module: nn.Module) -> bool:
    """Whether this is PEFT's wrapper around a layer; told by name, because PEFT need not be installed."""
    kind: Any = type(module)  # mypy takes a class of modules for unhashable
    return _wraps_layers(kind)


@functools.lru_cache(maxsize=1024)  # a model has thousands of modules, of a few dozen classes
def _wraps_layers(kind: type[nn.Module]) -> bool:
    return any(c.__name__ == "BaseTunerLayer" and c.__module__.startswith("peft.") for c in kind.__mro__)


def _ancestors(module: nn.Module, key: str) -> tuple[tuple[str, nn.Module], ...]:
    """The modules on the way to a parameter, the component first."""
    path = [("", module)]
    for part in key.split(".")[:-1]:
        child = path[-1][1]._modules[part]  # noqa: SLF001  # get_submodule takes ten times as long
        assert child is not None
        path.append((part, child))
    return tuple(path)


def _plain_key(key: str, ancestors: tuple[tuple[str, nn.Module], ...]) -> str | None:
    """The key without what wrappers put into it, or None for a parameter that a wrapper brought along."""
    parts = [part for part in key.split(".") if part != "_orig_mod"]  # torch.compile's wrapper
    if any(is_adapter(module) for _, module in ancestors):
        if "base_layer" not in parts:
            return None
        parts = [part for part in parts if part != "base_layer"]
    return ".".join(parts)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module behind `torch.compile`'s wrapper."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


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
        if not isinstance(present, nn.Module) or unwrapped(present) is not module:
            raise UnsupportedHostError(
                f"{name}: expected the module that was attached, got another one in its place",
                hint="rasura.attach(pipe, registry) again",
            )


def part_of(model: object) -> str:
    """Which part of a pipeline a lone module is.

    Raises:
        UnsupportedHostError: none that its class name tells.
    """
    kind = type(unwrapped(model)).__name__ if isinstance(model, nn.Module) else ""
    for word, part in (("UNet", "unet"), ("Transformer", "transformer"), ("CLIPText", "text_encoder")):
        if word in kind:
            return part
    raise UnsupportedHostError(
        f"expected a diffusers pipeline, a UNet, a transformer or a CLIP text encoder, got {type(model).__name__}",
        hint="TorchHost({'unet': module}, 'my model')",
    )
