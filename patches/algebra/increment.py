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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from rasura.patches._io.arrays import Array, Numbers, as_array, view_as_tensor
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AlgebraError, BoundExceededError, NotFiniteError, OffGridError
from rasura.patches.plain_numbers import say_number

if TYPE_CHECKING:
    import torch  # composing on disk needs none

DETECTOR_STEP = 2.0**-22
RESPONSE_STEP = 2.0**-18
RESPONSE_LIMIT = 64.0
SUM_LIMIT = 256.0


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Increment:
    """ΔW = B·A of one parameter, both factors float32 on the grid.

    Attributes:
        detector: A [rank, d_in].
        response: B [d_out, rank].
    """

    detector: Array
    response: Array

    def __init__(self, A: Numbers, B: Numbers) -> None:
        """Check the factors, and take them without copying.

        Args:
            A: detector [rank, d_in], float32, tensor or array.
            B: response [d_out, rank], likewise.

        Raises:
            AlgebraError: factors that do not fit, are off the grid, not finite or out of range.
        """
        _check_shapes(A, B)
        detector, response = _on_grid(A, DETECTOR_STEP, "A"), _on_grid(B, RESPONSE_STEP, "B")
        _check_range(detector, response)
        object.__setattr__(self, "detector", detector)
        object.__setattr__(self, "response", response)

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
        from rasura.patches.algebra.rounding import round_factors  # needs torch; what is stored is rounded already

        _check_shapes(A, B)
        return cls(*round_factors(A, B, DETECTOR_STEP, RESPONSE_STEP))

    def split(self, ranks: Sequence[int]) -> list[Self]:
        """Increments of so many detectors each, in order; what was checked of all holds of each.

        Args:
            ranks: together the rank.
        """
        ends = np.cumsum(ranks)
        if int(ends[-1]) != self.rank or min(ranks) < 1:
            raise AlgebraError(f"parts do not fit: expected ranks that make {self.rank}, got {[*ranks]}")
        found = []
        for end, rank in zip(ends, ranks, strict=True):
            part = object.__new__(type(self))
            # copies, row by row: a view would keep all the others alive
            object.__setattr__(part, "detector", self.detector[end - rank : end].copy())
            object.__setattr__(part, "response", self.response[:, end - rank : end].copy())
            found.append(part)
        return found

    @property
    def A(self) -> torch.Tensor:
        """The detector as a tensor on the same memory."""
        return view_as_tensor(self.detector)

    @property
    def B(self) -> torch.Tensor:
        """The response as a tensor on the same memory."""
        return view_as_tensor(self.response)

    @property
    def rank(self) -> int:
        """Number of detectors."""
        return int(self.detector.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the parameter."""
        return int(self.response.shape[0]), int(self.detector.shape[1])

    def dense(self, strength: Strength = ONE) -> torch.Tensor:
        """s·B·A as [d_out, d_in] float64, exact."""
        return (self.B.double() * strength.value) @ self.A.double()


def _check_shapes(A: Numbers, B: Numbers) -> None:
    if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1] or 0 in (*A.shape, *B.shape):  # noqa: PLR2004
        raise AlgebraError(
            f"factors do not fit: expected A [rank, d_in] and B [d_out, rank], got {[*A.shape]} and {[*B.shape]}"
        )


def _on_grid(given: Numbers, step: float, name: str) -> Array:
    """The factor itself, if all its numbers are on the grid."""
    if str(given.dtype).removeprefix("torch.") != "float32":
        raise OffGridError(f"{name} is {given.dtype}: expected float32")
    factor = as_array(given)
    if not bool(np.isfinite(factor).all()):
        raise NotFiniteError(f"{name} holds NaN or infinity: expected finite numbers")
    scaled = factor.astype(np.float64) / step  # a power of two: the division is exact
    if not bool((scaled == np.rint(scaled)).all()):
        raise OffGridError(f"{name} is off the grid: expected multiples of {step}")
    return factor


def _check_range(A: Array, B: Array) -> None:
    # Squares of grid points are multiples of 2⁻⁴⁴: as long as the sum is near 1 it is exact, and so is the comparison.
    square = float(np.square(A, dtype=np.float64).sum(axis=1).max())  # of the longest row
    if square > 1.0:
        raise BoundExceededError(f"a row of A has norm {square**0.5:.6g}: expected at most 1")
    largest = float(np.abs(B).max())
    if largest >= RESPONSE_LIMIT:
        raise BoundExceededError(
            f"a response reaches {say_number(largest)}: expected less than {RESPONSE_LIMIT:g}; the target is "
            "too close to what is protected"
        )
