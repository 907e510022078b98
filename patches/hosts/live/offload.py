"""Where the true weights of an offloaded module lie, for accelerate's hooks and diffusers' group offloading.

Both libraries move weights to the device for a forward and away from it afterwards, and what lies on the module in
between is not always what the next forward reads:

    accelerate, in memory     the module holds meta tensors; the weights lie in the hook's map and are written there
    accelerate, on disk       every read is a new tensor: nothing to write to
    group, no stream          the weights themselves are moved: written where they are
    group, with a stream      between forwards the module holds the group's own CPU copies: written there; while a
                              group is on the device its weights are copies that are thrown away afterwards
    group, on disk            read from the group's file at every forward

None of these is imported: hooks are told by their attributes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["find_offloads", "find_stored", "group_trouble", "hook_on", "is_tied"]

Ancestors = tuple[tuple[str, nn.Module], ...]


def find_stored(key: str, ancestors: Ancestors) -> torch.Tensor | None:
    """The tensor from which accelerate loads a parameter before every forward; None if there is none in memory.

    Args:
        key: the parameter's own short name, such as `weight`.
        ancestors: the modules above it, the component first.
    """
    for _, module in reversed(ancestors):  # the hook nearest to the layer loads it last
        for hook in _aligning(module):
            return _entry(hook.weights_map, key)
        # No hook here: one module up, the same parameter is called by a longer name.
        name = next(short for short, each in ancestors if each is module)
        key = f"{name}.{key}"
    return None


def is_tied(key: str, ancestors: Ancestors) -> bool:
    """Whether accelerate offloads a parameter that transformers has tied to another one.

    From a device it makes two tensors of them; one of them written, the tie is broken.
    """
    if not any(find_offloads(module) for _, module in ancestors):
        return False
    pairs = getattr(ancestors[0][1], "all_tied_weights_keys", None) or {}
    # as the component calls it, whose own name is no part of it
    whole = ".".join([*(short for short, _ in ancestors[1:]), key])
    return whole in pairs or whole in pairs.values()


def find_offloads(module: nn.Module) -> bool:
    """Whether accelerate loads this module's weights for every forward."""
    return any(True for _ in _aligning(module))


def hook_on(module: nn.Module, name: str) -> Any:
    """What a library has put on a module under this name, or None.

    As `getattr` gives it; torch takes long to say that a module has no such attribute, and every module is asked.
    """
    if name not in module.__dict__ and type(module).__getattr__ is nn.Module.__getattr__:
        return getattr(type(module), name, None)
    return getattr(module, name, None)


def _aligning(module: nn.Module) -> Iterator[Any]:
    hook = hook_on(module, "_hf_hook")
    if hook is None:
        return
    inner: Sequence[object] = getattr(hook, "hooks", ()) or (hook,)  # accelerate's SequentialHook holds several
    for each in inner:
        if getattr(each, "offload", None) is True and getattr(each, "weights_map", None) is not None:
            yield each


def _entry(weights_map: Any, key: str) -> torch.Tensor | None:
    """What the map hands out, if it is the same tensor every time; a map on disk is not asked, for it would load it."""
    # accelerate's PrefixedDataset, at times in another one
    while hasattr(weights_map, "prefix") and hasattr(weights_map, "dataset"):
        key, weights_map = f"{weights_map.prefix}{key}", weights_map.dataset
    weights_map = getattr(weights_map, "state_dict", weights_map)  # OffloadedWeightsLoader: what it has in memory
    found = weights_map.get(key) if isinstance(weights_map, dict) else None
    return found if isinstance(found, torch.Tensor) else None


def group_trouble(tensor: torch.Tensor, ancestors: Ancestors) -> tuple[str, str] | None:
    """What keeps a write to a parameter from lasting under group offloading, and what to do; None if nothing does."""
    before = "apply before enable_group_offload(), or patch the checkpoint on disk"
    for _, module in ancestors:
        for group in _groups(module):
            if getattr(group, "offload_to_disk_path", None) is not None:
                return "one that diffusers' group offloading reads from its own file", before
            copies: Mapping[torch.Tensor, torch.Tensor] = group.cpu_param_dict
            # Without a stream the weights themselves move; with one, they are replaced by these copies after the
            # forward.
            copy = copies.get(tensor) if group.stream is not None else None
            if copy is not None and copy.data_ptr() != tensor.data_ptr():
                wait = "wait until no forward is running, then try again"
                return "one that group offloading will replace by its older copy", wait
    return None


def _groups(module: nn.Module) -> Iterator[Any]:
    registry = hook_on(module, "_diffusers_hook")
    for hook in getattr(registry, "hooks", {}).values():
        if hasattr(group := getattr(hook, "group", None), "cpu_param_dict"):
            yield group
