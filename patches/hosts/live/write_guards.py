"""What makes writing into a live module wrong although torch would let it pass without a word.

Each guard looks at one parameter and its ancestors, and returns a sentence and a hint, or None. The cases, and what
happens elsewhere when nobody looks:

    quantised, sharded      the numbers are not the weights
    meta                    the write is accepted and lost
    offload                 as `rasura.patches.hosts.live.offload` has it: a copy is written, and thrown away
    layerwise casting       the next forward rounds what was written, if it computes in fewer digits
    fused projections       the layer is no longer read, a fused copy of it is
    PEFT adapter            merging and unmerging add and subtract around the written values
    shared memory           another parameter changes, too, or another process's model, or a file
    frozen graph            the compiler has folded the old numbers into its code
"""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import nn

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.live.module_parameters import FLOAT_TYPES, LiveParameter, is_peft_class, is_peft_layer
from rasura.patches.hosts.live.offload import find_offloads, group_trouble, hook_on, is_tied

__all__ = [
    "holds_shards",
    "is_plain",
    "is_quantised",
    "refuse_bypassed",
    "refuse_flat",
    "refuse_shard",
    "refuse_unreadable",
    "refuse_unreadable_shard",
    "refuse_unwritable",
]

_FULLY: Final = "FSDPModule"
_FLAT: Final = "FullyShardedDataParallel"
_FULLY_SHARD: Final = "shard with torch.distributed.fsdp.fully_shard, or patch the model before it is sharded"
# diffusers' `fuse_projections()`: a layer by its short name, and the fused layers that are read in its place.
_FUSED: Final = {
    **dict.fromkeys(("to_q", "to_k", "to_v"), ("to_qkv", "to_kv")),
    **dict.fromkeys(("add_q_proj", "add_k_proj", "add_v_proj"), ("to_added_qkv",)),
}
_MARKS: Final = frozenset({"_hf_hook", "_diffusers_hook", *(copy for copies in _FUSED.values() for copy in copies)})
"""What accelerate and diffusers put on modules, as far as guards look for it."""
_Finding = tuple[str, str] | None  # what was found instead of a plain parameter, and what to do


def refuse_unwritable(parameters: Iterable[LiveParameter]) -> None:
    """Refuse parameters that a plain in-place write would not, or not only, change.

    Raises:
        UnsupportedHostError: with what was found and what to do.
    """
    bare: dict[int, bool] = {}  # modules, by identity: parameters share most of those above them
    for parameter in parameters:
        for _, module in parameter.ancestors:
            if id(module) not in bare:
                bare[id(module)] = _is_bare(module)
        alone = all(bare[id(module)] for _, module in parameter.ancestors)
        _refuse(parameter, _OF_TENSORS if alone else _GUARDS)


def refuse_unreadable(parameter: LiveParameter) -> None:
    """Refuse a parameter whose numbers are not the weights, or not all of them.

    Raises:
        UnsupportedHostError: with what was found and what to do.
    """
    _refuse(parameter, _UNREADABLE)


def refuse_shard(shard: LiveParameter) -> None:
    """As `refuse_unwritable`, of a process's own part of a sharded parameter."""
    _refuse(shard, (_flat, *_GUARDS[1:]))  # all but the first, which refuses every shard


def refuse_unreadable_shard(shard: LiveParameter) -> None:
    """As `refuse_unreadable`, of a process's own part of a sharded parameter."""
    _refuse(shard, (_flat, *_UNREADABLE[1:]))


def refuse_flat(modules: Iterable[nn.Module]) -> None:
    """Refuse FSDP1, whose parameters have other names, and are views of a flat one that comes and goes.

    Raises:
        UnsupportedHostError: with what to use instead.
    """
    if any(_is_named(each, _FLAT) for module in modules for each in module.modules()):
        raise UnsupportedHostError(f"expected plain parameters or shards, got {_FLAT}", hint=_FULLY_SHARD)


def holds_shards(modules: Iterable[nn.Module]) -> bool:
    """Whether any parameter is one of `torch.distributed.tensor`, or gathered from them by `fully_shard`."""
    return any(
        _is_named(each, _FULLY) or any(_is_sharded(t) for t in each.parameters(recurse=False))
        for module in modules
        for each in module.modules()
    )


def refuse_bypassed(parameter: LiveParameter) -> None:
    """Refuse a layer that the model does not call, or not as the last word on its output.

    Raises:
        UnsupportedHostError: with what was found and what to do.
    """
    _refuse(parameter, (_fused, _adapter))


def is_quantised(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers are codes: of a quantisation library's class, or of a type that is never patched."""
    return not _is_sharded(tensor) and (not is_plain(tensor) or tensor.dtype not in FLOAT_TYPES)


def _refuse(parameter: LiveParameter, guards: Iterable[Callable[[LiveParameter], _Finding]]) -> None:
    for guard in guards:
        if (found := guard(parameter)) is not None:
            got, hint = found
            raise UnsupportedHostError(
                f"{parameter.name}: expected a plain parameter, got {got}", hint=hint, parameter=parameter.name
            )


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is an ordinary one, of torch's own two classes."""
    # Exactly these classes: quantised and sharded tensors come as subclasses of either.
    return type(tensor) in {nn.Parameter, torch.Tensor} and tensor.layout == torch.strided and not tensor.is_quantized


def _is_sharded(tensor: torch.Tensor) -> bool:
    kind: Any = type(tensor)  # mypy takes a class of tensors for unhashable
    return _holds_shards(kind)


@functools.lru_cache(maxsize=1024)  # asked of every parameter, and there are a few classes
def _holds_shards(kind: type[torch.Tensor]) -> bool:
    return any("DTensor" in base.__name__ for base in kind.__mro__)


def _sharded(parameter: LiveParameter) -> _Finding:
    # Also where a tensor looks plain: between its forwards, FSDP may leave gathered copies that it throws away.
    if any(_is_named(each, _FULLY) for _, each in parameter.ancestors) or _is_sharded(parameter.tensor):
        return "a tensor sharded over devices", "rasura.attach(model, registry), in every process at the same time"
    return _flat(parameter)


def _flat(parameter: LiveParameter) -> _Finding:
    if any(_is_named(each, _FLAT) for _, each in parameter.ancestors):
        return "a tensor sharded over devices, which FSDP1 takes from a flat one for each forward", (_FULLY_SHARD)
    return None


def _is_named(module: nn.Module, name: str) -> bool:
    kind: Any = type(module)  # mypy takes a class of modules for unhashable
    return name in _names_of(kind)


@functools.lru_cache(maxsize=1024)  # a model has thousands of modules, of a few dozen classes
def _names_of(kind: type[nn.Module]) -> frozenset[str]:
    """What a class and those above it are called; `fully_shard` gives a module a class of its own."""
    return frozenset(base.__name__ for base in kind.__mro__)


def _is_bare(module: nn.Module) -> bool:
    """Whether no guard that looks at modules can find anything at this one."""
    kind: Any = type(module)  # mypy takes a class of modules for unhashable
    if not _is_bare_class(kind):
        return False
    if kind.__getattr__ is not nn.Module.__getattr__:  # as diffusers' models and all wrappers have it
        return not any(hasattr(module, mark) for mark in _MARKS)
    places = module.__dict__, module._modules, module._parameters, module._buffers  # noqa: SLF001  # as torch looks
    return all(_MARKS.isdisjoint(place) for place in places)


@functools.lru_cache(maxsize=1024)
def _is_bare_class(kind: Any) -> bool:  # mypy takes a class of modules for unhashable
    marked = is_peft_class(kind) or any(hasattr(kind, mark) for mark in _MARKS)
    return not marked and _names_of(kind).isdisjoint((_FULLY, _FLAT))


def _sharded_tensor(parameter: LiveParameter) -> _Finding:
    return _sharded(parameter) if _is_sharded(parameter.tensor) else None


def _other_class(parameter: LiveParameter) -> _Finding:
    tensor = parameter.tensor
    if is_quantised(tensor):
        got = f"a quantised one ({type(tensor).__name__} of {str(tensor.dtype).removeprefix('torch.')})"
        return got, "patch the model before it is quantised, or see rasura.patches.hosts.quantised.side_branch"
    return None


def _expanded(parameter: LiveParameter) -> _Finding:
    tensor = parameter.tensor
    # As `expand` makes them: several elements of one dimension, no step between them.
    if any(stride == 0 < size - 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        return "one whose elements share memory", "give it a clone() of its tensor"
    return None


def _of_several(parameter: LiveParameter) -> _Finding:
    # What lies on a device says yes without being anybody else's.
    if parameter.tensor.device.type == "cpu" and parameter.tensor.is_shared():  # type: ignore[no-untyped-call]
        return "one in memory of several processes, or of a file", "load the model in each process by itself"
    return None


_REMOVE: Final = "apply before offloading: pipe.remove_all_hooks(), patch, then enable offloading again"


def _meta(parameter: LiveParameter) -> _Finding:
    if parameter.tensor.is_meta:
        return "one on the meta device, whose values lie on disk or nowhere", _REMOVE
    return None


def _offloaded(parameter: LiveParameter) -> _Finding:
    owner = parameter.ancestors[-1][1]
    # On the module itself only while a forward runs; between forwards the hook holds it.
    held = any(parameter.tensor is each for each in (*owner.parameters(recurse=False), *owner.buffers(recurse=False)))
    if held and any(find_offloads(module) for _, module in parameter.ancestors):
        return "one that accelerate swaps with an offloaded copy, in the middle of a forward", _REMOVE
    if is_tied(parameter.name.rpartition(".")[2], parameter.ancestors):
        return "one that accelerate may hold twice, for the layer it is tied to as well", _REMOVE
    return None


def _group_offloaded(parameter: LiveParameter) -> _Finding:
    return group_trouble(parameter.tensor, parameter.ancestors)


def _cast_layerwise(parameter: LiveParameter) -> _Finding:
    for _, module in parameter.ancestors:
        hooks: Mapping[str, object] = getattr(hook_on(module, "_diffusers_hook"), "hooks", {})
        for hook in hooks.values():
            storage, compute = getattr(hook, "storage_dtype", None), getattr(hook, "compute_dtype", None)
            # no digit is lost
            if storage is None or compute is None or torch.promote_types(storage, compute) == compute:
                continue
            return f"one that layerwise casting rounds to {str(compute).removeprefix('torch.')} at every forward", (
                "load the model without enable_layerwise_casting(), or with a wider compute_dtype"
            )
    return None


def _fused(parameter: LiveParameter) -> _Finding:
    for (_, module), (child, _) in zip(parameter.ancestors, parameter.ancestors[1:], strict=False):
        copies = [name for name in _FUSED.get(child, ()) if hasattr(module, name)]
        if copies and _reads_fused(module):
            return f"one that is not read any more: {copies[0]} is a fused copy", "call pipe.unfuse_qkv_projections()"
    return None


def _reads_fused(attention: nn.Module) -> bool:
    # The older attention class keeps its fused copies for good and only changes the processor back.
    if type(attention).__module__ == "diffusers.models.attention_processor":
        return "Fused" in type(getattr(attention, "processor", None)).__name__
    return True


def _adapter(parameter: LiveParameter) -> _Finding:
    for _, module in parameter.ancestors:
        if is_peft_layer(module):
            if getattr(module, "merged", False):
                return "one with a merged PEFT adapter", "load the model afresh: unfusing does not restore its weights"
            return "one wrapped by a PEFT adapter", "call pipe.unload_lora_weights() first"
    return None


def _frozen(_: LiveParameter) -> _Finding:
    config = sys.modules.get("torch._inductor.config")  # not imported: whoever compiled has done that
    if config is not None and getattr(config, "freezing", False):
        return "one that inductor may have frozen into its code", "set torch._inductor.config.freezing = False"
    return None


_UNREADABLE: Final[tuple[Callable[[LiveParameter], _Finding], ...]] = (_sharded, _meta, _other_class)
_GUARDS: Final[tuple[Callable[[LiveParameter], _Finding], ...]] = (
    _sharded,
    _meta,
    _offloaded,
    _other_class,
    _expanded,
    _of_several,
    _group_offloaded,
    _cast_layerwise,
    _fused,
    _adapter,
    _frozen,
)
_OF_TENSORS: Final = (_sharded_tensor, _meta, _other_class, _expanded, _of_several, _frozen)
