"""One weight increment ΔW = B·A on the exact grid.

A floating-point sum depends on its order; a sum of multiples of one step does not, as long as it stays small enough
for the format. So the factors live on a fixed grid:

* `A` (the detector, [rank, d_in]): multiples of 2⁻²², every row of norm ≤ 1;
* `B` (the response, [d_out, rank]): multiples of 2⁻¹⁸, |b| < 64;
* a strength `s`: a multiple of 2⁻⁴ in [-4, 4].

Every product s·b·a is then a multiple of 2⁻⁴⁴, and as long as Σ|s||b||a| < 2⁸ every partial sum fits the 53 bits of a
float64: any GEMM, in any order, on any device, gives the same bits. All three are exact in float32, so the factors are
stored as an ordinary LoRA file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AlgebraError, BoundExceededError, NotFiniteError, OffGridError
from rasura.patches.plain_numbers import say_number

DETECTOR_STEP = 2.0**-22
RESPONSE_STEP = 2.0**-18
RESPONSE_LIMIT = 64.0
SUM_LIMIT = 256.0
# Rounding to the grid moves an entry by at most 2⁻²³, so a unit row of up to 2²⁰ entries grows by at most 2⁻¹³.
_ROW_SHRINK = 1.0 - 2.0**-12
_ROW_LEAST = _ROW_SHRINK - 2.0**-13


@dataclass(frozen=True, slots=True, eq=False)
class Increment:
    """ΔW = B·A of one parameter, both factors float32 on the grid.

    Attributes:
        A: detector [rank, d_in].
        B: response [d_out, rank].
    """

    A: torch.Tensor
    B: torch.Tensor

    def __post_init__(self) -> None:
        _check_shapes(self.A, self.B)
        _check_grid(self.A, DETECTOR_STEP, "A")
        _check_grid(self.B, RESPONSE_STEP, "B")
        _check_range(self.A, self.B)

    @classmethod
    def quantised(cls, A: torch.Tensor, B: torch.Tensor) -> Self:
        """Round real factors to the grid: rows of `A` become unit rows, their norms move into `B`.

        What this returned comes back unchanged when it is quantised again.

        Args:
            A: detector [rank, d_in], any float dtype.
            B: response [d_out, rank], any float dtype.

        Raises:
            BoundExceededError: a response of 64 or more.
            NotFiniteError: NaN or infinity.
        """
        A, B = A.to(torch.float64), B.to(torch.float64)
        _check_shapes(A, B)
        norms = torch.linalg.vector_norm(A, dim=1)  # [rank]
        # was quantised before; scaling again would move its bits
        ready = _on_grid(A, DETECTOR_STEP).all(1) & (norms >= _ROW_LEAST) & (norms <= 1)
        scale = torch.where(ready, torch.ones_like(norms), norms / _ROW_SHRINK)  # [rank]
        unit = A / torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]  # a row of zeros stays one
        # B·A stays what it was, up to the grid
        return cls(_rounded(unit, DETECTOR_STEP), _rounded(B * scale, RESPONSE_STEP))

    @property
    def rank(self) -> int:
        """Number of detectors."""
        return int(self.A.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the parameter."""
        return int(self.B.shape[0]), int(self.A.shape[1])

    def dense(self, strength: Strength = ONE) -> torch.Tensor:
        """s·B·A as [d_out, d_in] float64, exact."""
        return (self.B.to(torch.float64) * strength.value) @ self.A.to(torch.float64)


def _rounded(values: torch.Tensor, step: float) -> torch.Tensor:
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError("a factor holds NaN or infinity: expected finite numbers")
    return (torch.round(values / step) * step + 0.0).to(torch.float32)  # + 0.0 turns -0.0 into 0.0


def _on_grid(values: torch.Tensor, step: float) -> torch.Tensor:
    scaled = values.to(torch.float64) / step  # a power of two: the division is exact
    return scaled == torch.round(scaled)


def _check_shapes(A: torch.Tensor, B: torch.Tensor) -> None:
    if A.dim() != 2 or B.dim() != 2 or A.shape[0] != B.shape[1] or 0 in (*A.shape, *B.shape):  # noqa: PLR2004
        raise AlgebraError(
            f"factors do not fit: expected A [rank, d_in] and B [d_out, rank], got {[*A.shape]} and {[*B.shape]}"
        )


def _check_grid(factor: torch.Tensor, step: float, name: str) -> None:
    if factor.dtype != torch.float32:
        raise OffGridError(f"{name} is {factor.dtype}: expected float32")
    if not bool(torch.isfinite(factor).all()):
        raise NotFiniteError(f"{name} holds NaN or infinity: expected finite numbers")
    if not bool(_on_grid(factor, step).all()):
        raise OffGridError(f"{name} is off the grid: expected multiples of {step}")


def _check_range(A: torch.Tensor, B: torch.Tensor) -> None:
    norm = float(torch.linalg.vector_norm(A.to(torch.float64), dim=1).max())  # the longest row
    if norm > 1.0:
        raise BoundExceededError(f"a row of A has norm {norm:.6g}: expected at most 1")
    largest = float(B.abs().max())
    if largest >= RESPONSE_LIMIT:
        raise BoundExceededError(
            f"a response reaches {say_number(largest)}: expected less than {RESPONSE_LIMIT:g}; the target is "
            "too close to what is protected"
        )
