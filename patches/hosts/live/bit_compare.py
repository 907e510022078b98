"""Tensors compared bit for bit, and summed up bit for bit."""

import ctypes
from collections.abc import Callable
from typing import Final

import numpy as np
import torch

__all__ = ["compute_checksum", "same_bits"]

_PROBE = 512  # elements; where two values differ at all, they nearly always differ here


def _find_memcmp() -> Callable[[int, int, int], int] | None:
    """C's own comparison, which stops at the first difference and lets other threads run; None where there is none."""
    try:
        found = ctypes.CDLL(None).memcmp
    except (OSError, AttributeError, TypeError):  # Windows has no library of everything that is loaded
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return found


_MEMCMP: Final = _find_memcmp()


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether shape, dtype and elements are the same bit for bit; unlike `==`, 0 and -0 differ. Compared at `left`."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    here, there = left.detach().contiguous(), right.detach().contiguous()
    if here.device.type == there.device.type == "cpu":
        return _same_memory(here, there)
    # A device compares eight bytes as fast as one element, whatever its size.
    eight = _in_eights(here) and _in_eights(there)
    integers = torch.int64 if eight else _integers(left)
    mine, other = here.view(integers), there.view(integers)
    return torch.equal(_probe(mine), _probe(other).to(left.device)) and torch.equal(mine, other.to(left.device))


def _same_memory(here: torch.Tensor, there: torch.Tensor) -> bool:
    """The same of contiguous tensors in the CPU's memory, of one shape and dtype."""
    count = here.numel() * here.element_size()
    if here.data_ptr() == there.data_ptr() or not count:
        return True
    if _MEMCMP is not None:
        return _MEMCMP(here.data_ptr(), there.data_ptr(), count) == 0
    mine, other = (tensor.reshape(-1).view(torch.uint8).numpy() for tensor in (here, there))
    return bool(np.array_equal(mine, other))


def compute_checksum(tensor: torch.Tensor) -> int:
    """The sum of the elements' bits modulo 2⁶⁴. It shows accidents and is no digest: whoever wants to can forge it."""
    here = tensor.detach().contiguous()
    integers = torch.int64 if _in_eights(here) else _integers(here)
    return int(here.view(integers).sum(dtype=torch.int64))


def _probe(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1)[:_PROBE]


def _integers(tensor: torch.Tensor) -> torch.dtype:
    return {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]


def _in_eights(tensor: torch.Tensor) -> bool:
    """Whether the memory of a contiguous tensor, row by row, can be taken as integers of eight bytes."""
    size = tensor.element_size()
    steps = tensor.shape[-1:].numel() * size, tensor.storage_offset() * size, tensor.data_ptr()
    return tensor.numel() > 0 and all(step % 8 == 0 for step in steps)  # an empty one has any strides
