"""Where tensors are rounded: real factors to the grid, once, when a patch is made; and the last steps of composing.

Those are a float64 product, the base added to it, rounded to float32 and to a dtype.
"""

from __future__ import annotations

import torch

from rasura.patches._io.tensor_bytes import is_finite
from rasura.patches.algebra import fused_add
from rasura.patches.errors import NotFiniteError

__all__ = ["Blocks", "round_factors", "round_into"]

# Rounding to the grid moves an entry by at most 2⁻²³, so a unit row of up to 2²⁰ entries grows by at most 2⁻¹³.
_ROW_SHRINK = 1.0 - 2.0**-12
_ROW_LEAST = _ROW_SHRINK - 2.0**-13


def round_factors(
    A: torch.Tensor, B: torch.Tensor, detector_step: float, response_step: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors on the grid, float32: rows of A become unit rows, their norms move into B.

    What this returned comes back unchanged when it is rounded again.

    Args:
        A: detector [rank, d_in], any float dtype.
        B: response [d_out, rank], any float dtype.
        detector_step: the grid of A.
        response_step: the grid of B.

    Raises:
        NotFiniteError: NaN or infinity.
    """
    A, B = A.to(torch.float64), B.to(torch.float64)
    norms = torch.linalg.vector_norm(A, dim=1)  # [rank]
    # was rounded before; scaling again would move its bits
    ready = _is_on_grid(A, detector_step).all(1) & (norms >= _ROW_LEAST) & (norms <= 1)
    scale = torch.where(ready, torch.ones_like(norms), norms / _ROW_SHRINK)  # [rank]
    unit = A / torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]  # a row of zeros stays one
    # B·A stays what it was, up to the grid
    return _round(unit, detector_step), _round(B * scale, response_step)


def _is_on_grid(values: torch.Tensor, step: float) -> torch.Tensor:
    scaled = values / step  # a power of two: the division is exact
    return scaled == torch.round(scaled)


def _round(values: torch.Tensor, step: float) -> torch.Tensor:
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError("a factor holds NaN or infinity: expected finite numbers")
    return (torch.round(values / step) * step + 0.0).to(torch.float32)  # + 0.0 turns -0.0 into 0.0


class Blocks:
    """Products of some rows of B with A: room for them in float64 and in float32, used again and again."""

    def __init__(self, A: torch.Tensor, rows: int, *, fuse: bool) -> None:
        """Room for so many rows; with `fuse`, Triton's kernel takes all steps after the product at once."""
        self._A, self._rows, self._fuse = A, rows, fuse
        self._sums = torch.empty(rows, A.shape[1], dtype=torch.float64, device=A.device)
        self._singles = torch.empty(0 if fuse else rows, A.shape[1], dtype=torch.float32, device=A.device)
        # on the device: the kernel writes it, nobody waits
        self._broken = torch.zeros(1, dtype=torch.int32, device=A.device)
        self._finite = True
        self._done = range(0)  # rows of B whose products lie in `_sums`

    def round_into(self, result: torch.Tensor, base: torch.Tensor, B: torch.Tensor, at: int) -> None:
        """The base plus B·A from row `at` of B on, rounded to float32 and then to the result's dtype."""
        fuse = self._fuse and fused_add.fits(result, base)
        for start in range(0, len(base), self._rows):
            rows = slice(start, min(start + self._rows, len(base)))
            sums = self._product(B, at + rows.start, at + rows.stop)
            if fuse:
                fused_add.add_round_store(result[rows], base[rows], sums, self._broken)
            else:
                round_into(result[rows], base[rows], sums, self._room(len(sums)))
        self._finite = self._finite and (fuse or is_finite(result))

    def finite(self) -> bool:
        """Whether all results so far are finite; waits for the device."""
        return self._finite and not int(self._broken)

    def _product(self, B: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Rows of B·A; those of the whole part are made at once where there is room for them."""
        if stop > self._done.stop:
            self._done = range(start, min(start + self._rows, len(B)))
            torch.mm(B[self._done.start : self._done.stop], self._A, out=self._sums[: len(self._done)])
        return self._sums[start - self._done.start : stop - self._done.start]

    def _room(self, rows: int) -> torch.Tensor:
        """So many rows in float32; the kernel needs none, and not every base is one for it."""
        if len(self._singles) < rows:
            self._singles = self._singles.new_empty(self._rows, self._singles.shape[1])
        return self._singles[:rows]


def round_into(result: torch.Tensor, base: torch.Tensor, sums: torch.Tensor, singles: torch.Tensor) -> None:
    """The base plus the sums, rounded to float32 and then to the result's dtype; where a sum is zero, the base's bits.

    Args:
        result: [rows, d_in] float16, bfloat16 or float32; written.
        base: the same.
        sums: [rows, d_in] float64; used up.
        singles: [rows, d_in] float32; used up.
    """
    if _has_negative_zero(base):
        # A sum of zeros has the sign that the GEMM gives it. x + (-0.0) is x to the bit, -0.0 too.
        there = _bits_of(base) == torch.iinfo(_bits_of(base).dtype).min  # of few weights, if of any
        zeros = sums[there]
        sums[there] = zeros.masked_fill_(zeros == 0, -0.0)
    singles.copy_(base)  # exact; a sum of float64 and float16 would take a slower way to the same bits
    sums += singles  # float64: the one addition
    singles.copy_(sums)  # first rounding, to float32
    result.copy_(singles)  # second rounding, to the own dtype; nothing to round where that is float32


def _has_negative_zero(values: torch.Tensor) -> bool:
    """Told by the bits: -0.0 is the smallest of all integers."""
    bits = _bits_of(values)
    return int(bits.min()) == torch.iinfo(bits.dtype).min


def _bits_of(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int16 if values.element_size() == 2 else torch.int32)  # noqa: PLR2004  # bytes
