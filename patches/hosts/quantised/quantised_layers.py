"""Quantised linear layers: which they are, and a digest of the numbers that a library keeps in place of a weight.

Every library keeps them in its own way. What counts is what the layer's forward reads:

    bitsandbytes, 8-bit    `weight`, and row scales that the first forward moves from the weight into the layer's state
    bitsandbytes, 4-bit    `weight` and its `quant_state`; on CPUs with AVX-512 BF16 the first forward repacks the codes
                           and rounds the scales, so both sides of that are hashed as they are after it
    torchao                a tensor of tensors, named by `__tensor_flatten__`
    layerwise casting      the weight in its storage dtype; for the length of a forward, the same numbers in a wider one
    others                 all parameters and buffers of the layer but its bias, GGUF's blocks among them

The digest is for one life of the process: it says whether something changed, and is no name of the weights.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import nn

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.live.module_parameters import FLOAT_TYPES
from rasura.patches.hosts.live.write_guards import is_quantised
from rasura.patches.types import Digest, ParamName

__all__ = ["QuantisedLayer", "digest_codes", "find_codes", "read_quantised_layer"]

_BIAS: Final = "bias"
_Named: TypeAlias = Iterator[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """A linear layer whose weight is not stored as plain floating-point numbers."""

    name: ParamName
    kind: str
    """The class and dtype of its weight, such as `Int8Params of int8`."""
    shape: tuple[int, int]
    """(d_out, d_in)."""


def read_quantised_layer(name: ParamName, module: nn.Module) -> QuantisedLayer | None:
    """What a module is as a quantised linear layer; None for every other."""
    shape = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if not isinstance(shape[0], int) or not isinstance(shape[1], int):
        return None
    weight, storage = find_codes(module), _storage(module)
    if storage is None and not is_quantised(weight):
        return None
    kind = f"{type(weight).__name__} of {str(storage or weight.dtype).removeprefix('torch.')}"
    return QuantisedLayer(name, kind, (shape[0], shape[1]))


def find_codes(module: nn.Module) -> torch.Tensor:
    """The tensor that holds the codes: `weight`, or whatever the layer has instead of one; else an empty one."""
    found = getattr(module, "weight", None)
    if isinstance(found, torch.Tensor):
        return found
    codes = [t for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)) if is_quantised(t)]
    return codes[0] if codes else torch.empty(0)


def digest_codes(name: ParamName, module: nn.Module) -> Digest:
    """SHA-256 over the canonical JSON of name, dtype, shape and bytes of everything that stands for the weight.

    Raises:
        UnsupportedHostError: some of it is not in memory, or has no bytes that could be hashed.
    """
    try:
        entries = sorted((key, str(t.dtype), *map(str, t.shape), digest_tensor(t)) for key, t in _tensors(module))
    except (RuntimeError, TypeError, ValueError) as error:  # torch's and the libraries' own
        raise UnsupportedHostError(
            f"{name}: expected codes whose bytes can be read, got {type(find_codes(module)).__name__}: {error}",
            parameter=name,
        ) from None
    return digest_of(canonical_json.dumps([list(entry) for entry in entries]))


def _tensors(module: nn.Module) -> _Named:
    storage = _storage(module)
    for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if key != _BIAS:
            for inner, plain in _parts(key, tensor, module):
                # In the middle of a forward the numbers are the same ones, in a wider dtype.
                yield inner, plain if storage is None or key != "weight" else plain.to(storage)


def _parts(key: str, tensor: torch.Tensor, module: nn.Module) -> _Named:
    kind = type(tensor).__name__
    if kind == "Params4bit" and getattr(tensor, "quant_state", None) is not None:
        yield from _four_bits(key, tensor, module)
    elif hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(f"{key}.{name}", getattr(tensor, name), module)
    else:
        yield key, _plain(tensor)
        if kind == "Int8Params" and (scales := _row_scales(tensor, module)) is not None:
            yield f"{key}.SCB", scales


def _row_scales(tensor: torch.Tensor, module: nn.Module) -> torch.Tensor | None:
    mine = getattr(tensor, "SCB", None)
    found = mine if mine is not None else getattr(getattr(module, "state", None), "SCB", None)
    return found if isinstance(found, torch.Tensor) else None


def _four_bits(key: str, tensor: torch.Tensor, module: nn.Module) -> _Named:
    data, state = _plain(tensor), getattr(tensor, "quant_state", None)
    packed = getattr(state, "packing_format_for_cpu", False)
    if data.device.type == "cpu" and not packed and getattr(module, "support_avx512bf16_for_cpu", False):
        functional: Any = importlib.import_module("bitsandbytes.functional")
        data, state = functional._convert_weight_packed_for_cpu(data, copy.copy(state))  # noqa: SLF001
    yield key, data
    yield from _inside(key, state)


def _inside(key: str, state: object) -> _Named:
    """The tensors of a quantisation state and of the state of its scales; what is no tensor does not change."""
    for name, value in vars(state).items():
        if isinstance(value, torch.Tensor):
            yield f"{key}.{name}", _plain(value)
        elif name == "state2" and value is not None:
            yield from _inside(f"{key}.{name}", value)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as a tensor of torch's own class: subclasses answer `cpu` and `view` in their own ways."""
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
        return tensor.data


def _storage(module: nn.Module) -> torch.dtype | None:
    """The dtype in which diffusers' layerwise casting stores a layer between forwards, if it is no plain one."""
    hooks: Mapping[str, object] = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    found = (getattr(hook, "storage_dtype", None) for hook in hooks.values())
    return next((dtype for dtype in found if isinstance(dtype, torch.dtype) and dtype not in FLOAT_TYPES), None)
