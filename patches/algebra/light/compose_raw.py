"""The arithmetic of `rasura.patches.algebra.compose` without torch, for values that are bytes: the same bits.

W(S) = round(W_base + Σ s·B·A) is one exact float64 sum, one float64 addition, one rounding to float32 and one to the
parameter's dtype. Each is a single IEEE 754 operation, so who does it cannot show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from rasura.patches._io.arrays import Array, as_array, round_to_bfloat16, round_to_float16, widen
from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.rooms import make_rooms
from rasura.patches._io.sha256 import digest_of
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
_INFINITE: Final = {"F16": 0x7C00, "BF16": 0x7F80}
"""Of types of two bytes: the bits of infinity, above which are those of NaN alone."""
_ROUNDED: Final = {"F16": round_to_float16, "BF16": round_to_bfloat16}


def compose_raw(bases: Mapping[ParamName, RawValue], layers: Iterable[Layer]) -> dict[ParamName, RawValue]:
    """The values of parameters under a set of patches, with their digests, several at a time.

    Args:
        bases: pristine weights [d_out, d_in] of each layer; float16, bfloat16 or float32. Never changed.
        layers: what a stack adds, at least one term each.

    Raises:
        AlgebraError: a dtype or shape that does not fit, no terms, or terms of different shapes.
        BoundExceededError: the sum could round, so its bits would depend on the order.
        NotFiniteError: a result overflows the parameter's dtype, or a base is not finite.
    """
    listed = list(layers)
    rooms = make_rooms({layer.name: len(bases[layer.name].data) for layer in listed})
    values = count_at_once(lambda layer: _compose_one(bases[layer.name], layer, rooms[layer.name]), listed)
    return {layer.name: value for layer, value in zip(listed, values, strict=True)}


def _compose_one(base: RawValue, layer: Layer, data: memoryview) -> RawValue:
    check_fits(_spell(base), base.shape, layer.terms[0].increment)
    A, B = stack_detectors(layer.terms), stack_responses(layer.terms)  # [Σ rank, d_in], [d_out, Σ rank]
    check_bound(float(np.abs(B).sum(axis=1).max()))
    old, new = _elements(base), _elements(RawValue(base.dtype, base.shape, data))
    sums = np.empty((_BLOCK, A.shape[1]))
    for start in range(0, len(old), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(old)))
        # Below the bound every partial sum is exact, so the order of adding cannot show. Of one rank there is none.
        multiply = np.multiply if len(A) == 1 else np.matmul
        block = multiply(B[rows], A, out=sums[: rows.stop - rows.start])
        if not _round_into(new[rows], old[rows], block, base.dtype):
            raise not_finite({_spell(base)})
    return RawValue(base.dtype, base.shape, data, digest_of(data))


def _round_into(new: Array, old: Array, sums: Array, dtype: str) -> bool:
    """The base plus the sums, rounded twice; where a sum is zero the base's bits. Whether all of it is finite.

    Args:
        new: [rows, d_in] float32, or the bits of the two others; written.
        old: the same; the base.
        sums: [rows, d_in] float64; used up.
        dtype: safetensors' name of it.
    """
    if not _is_finite(old, dtype):
        return False
    singles = widen(RawValue(dtype, old.shape, old.reshape(-1).view(np.uint8).data))  # exact
    integers = np.dtype(f"i{old.itemsize}")
    if old.view(integers).min() == np.iinfo(integers).min:  # some -0.0
        # A sum of zeros has the sign that the GEMM gives it. x + (-0.0) is x to the bit, -0.0 too.
        np.copyto(sums, -0.0, where=sums == 0)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused
        sums += singles  # float64: the one addition
        singles = sums.astype(np.float32)  # first rounding
    if dtype in _ROUNDED:
        new[...] = _ROUNDED[dtype](singles)  # second rounding
    else:
        new[...] = singles
    return _is_finite(new, dtype)


def _is_finite(values: Array, dtype: str) -> bool:
    """Told by the bits, which takes a pass over them and no room."""
    if dtype == "F32":
        return bool(np.isfinite(values).all())
    return bool((values & 0x7FFF).max(initial=0) < _INFINITE[dtype])


def _elements(value: RawValue) -> Array:
    """[d_out, d_in] on the value's memory; of types of two bytes their bits."""
    return as_array(RawValue("U16", value.shape, value.data) if value.dtype in _ROUNDED else value)


def _spell(value: RawValue) -> str:
    return f"torch.{DTYPES[value.dtype][0]}"
