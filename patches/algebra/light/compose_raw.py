"""The arithmetic of `rasura.patches.algebra.compose` without torch, for values that are bytes: the same bits.

W(S) = round(W_base + Σ s·B·A) is one exact float64 sum, one float64 addition, one rounding to float32 and one to the
parameter's dtype. Each is a single IEEE 754 operation, so who does it cannot show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from rasura.patches._io.arrays import Array, as_array, round_to_bfloat16, widen
from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.tensor_bytes import DTYPES, RawValue
from rasura.patches.algebra.light.layers import (
    Layer,
    check_bound,
    check_fits,
    not_finite,
    stack_detectors,
    stack_responses,
)
from rasura.patches.types import ParamName

__all__ = ["compose_raw"]

_BLOCK: Final = 128
"""Rows that are composed at a time: their float64 values stay in a core's cache."""


def compose_raw(bases: Mapping[ParamName, RawValue], layers: Iterable[Layer]) -> dict[ParamName, RawValue]:
    """The values of parameters under a set of patches, several at a time.

    Args:
        bases: pristine weights [d_out, d_in] of each layer; float16, bfloat16 or float32. Never changed.
        layers: what a stack adds, at least one term each.

    Raises:
        AlgebraError: a dtype or shape that does not fit, no terms, or terms of different shapes.
        BoundExceededError: the sum could round, so its bits would depend on the order.
        NotFiniteError: a result overflows the parameter's dtype, or a base is not finite.
    """
    listed = list(layers)
    values = count_at_once(lambda layer: _compose_one(bases[layer.name], layer), listed)
    return {layer.name: value for layer, value in zip(listed, values, strict=True)}


def _compose_one(base: RawValue, layer: Layer) -> RawValue:
    check_fits(_spell(base), base.shape, layer.terms[0].increment)
    A, B = stack_detectors(layer.terms), stack_responses(layer.terms)  # [Σ rank, d_in], [d_out, Σ rank]
    check_bound(float(np.abs(B).sum(axis=1).max()))
    found = RawValue(base.dtype, base.shape, bytearray(len(base.data)))
    old, new = _elements(base), _elements(found)
    sums = np.empty((_BLOCK, A.shape[1]))
    for start in range(0, len(old), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(old)))
        # below the bound every partial sum is exact, so the order of adding cannot show
        block = np.matmul(B[rows], A, out=sums[: rows.stop - rows.start])
        if not _round_into(new[rows], old[rows], block, base.dtype):
            raise not_finite({_spell(base)})
    return found


def _round_into(new: Array, old: Array, sums: Array, dtype: str) -> bool:
    """The base plus the sums, rounded twice; where a sum is zero the base's bits. Whether all of it is finite.

    Args:
        new: [rows, d_in] in the dtype, bfloat16 as bits; written.
        old: the same; the base.
        sums: [rows, d_in] float64; used up.
        dtype: safetensors' name of it.
    """
    singles = widen(RawValue(dtype, old.shape, old.reshape(-1).view(np.uint8).data))  # exact
    # A sum of zeros has the sign that the GEMM gives it. x + (-0.0) is x to the bit, -0.0 too.
    np.copyto(sums, -0.0, where=sums == 0)
    sums += singles  # float64: the one addition
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused
        singles = sums.astype(np.float32)  # first rounding
        if not np.isfinite(singles).all():
            return False
        new[...] = round_to_bfloat16(singles) if dtype == "BF16" else singles  # second rounding
    return not _overflowed(new, dtype)


def _overflowed(new: Array, dtype: str) -> bool:
    """Whether rounding finite numbers to less gave an infinite one; told by the bits, which takes a pass over them."""
    if dtype == "F32":
        return False
    infinite = 0x7C00 if dtype == "F16" else 0x7F80
    return bool((new.view(np.uint16) & 0x7FFF).max(initial=0) >= infinite)


def _elements(value: RawValue) -> Array:
    """[d_out, d_in] on the value's memory; numpy has no bfloat16, so its bits."""
    return as_array(value if value.dtype != "BF16" else RawValue("U16", value.shape, value.data))


def _spell(value: RawValue) -> str:
    return f"torch.{DTYPES[value.dtype][0]}"
