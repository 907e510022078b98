"""The one arithmetic: W(S) = round(W_base + Σ s·B·A), a pure function of base and set.

Nothing here adds to present weights or subtracts from them. Whoever applies, reverts or switches asks for the value of
the new set, computed from the pristine base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.patches.errors import AlgebraError, BoundExceededError, NotFiniteError
from rasura.patches.increment import ONE, SUM_LIMIT, Increment, Strength
from rasura.patches.names import ParamName
from rasura.patches.tensors import is_finite, tensor_digest

if TYPE_CHECKING:
    import torch


_BLOCK: Final = 256
"""Rows that are composed at a time: their float64 values stay in the processor's cache. Other devices take all."""


@dataclass(frozen=True, slots=True)
class Term:
    """One patch's share of one parameter: s·B·A."""

    increment: Increment
    strength: Strength = ONE


@dataclass(frozen=True, slots=True)
class Layer:
    """What a stack does to one parameter."""

    name: ParamName
    terms: tuple[Term, ...]


def layers_of(stack: Iterable[tuple[Mapping[ParamName, Increment], Strength]]) -> tuple[Layer, ...]:
    """Group a stack's increments by parameter, sorted by name."""
    grouped: dict[ParamName, list[Term]] = {}
    for increments, strength in stack:
        for name, increment in increments.items():
            grouped.setdefault(name, []).append(Term(increment, strength))
    return tuple(Layer(name, tuple(terms)) for name, terms in sorted(grouped.items()))


def sum_bound(terms: Sequence[Term]) -> float:
    """An upper bound of Σ|s||B||A| over all entries, exact in float64: the largest Σ_p Σ_k |s_p·B_ok| of any row."""
    return _bound_of(_stacked(terms)[0]) if terms else 0.0


def increment_sum(terms: Sequence[Term]) -> torch.Tensor:
    """Σ s·B·A as [d_out, d_in] float64, exact: one GEMM over the stacked factors.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
        BoundExceededError: the sum could round, so its bits would depend on the order.
    """
    B, A = _checked(terms)
    return B @ A


def beside(terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of Σ s·B·A for a layer that cannot be merged: s·B [d_out, Σ rank] and A [Σ rank, d_in], float64.

    Their order depends on the set of terms alone, so that a product in any dtype does, too.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
        BoundExceededError: see `increment_sum`.
    """
    return _checked(sorted(terms, key=_order))


def _order(term: Term) -> tuple[str, str, int]:
    return tensor_digest(term.increment.A), tensor_digest(term.increment.B), term.strength.sixteenths


def _checked(terms: Sequence[Term], device: torch.device | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The stacked factors, whose product cannot round."""
    shapes = {term.increment.shape for term in terms}
    if len(shapes) != 1:
        raise AlgebraError(f"increments of one parameter must have one shape, got {sorted(shapes)}")
    B, A = _stacked(terms, device)
    bound = _bound_of(B)
    if bound >= SUM_LIMIT:
        raise BoundExceededError(
            f"the stack may reach {bound:.4g}: expected less than {SUM_LIMIT:g}, beyond which float64 would round",
            hint="rasura patch apply ID... --model DIR --strength 0.5",
            bound=f"{bound:.6g}",
        )
    return B, A


def _stacked(terms: Sequence[Term], device: torch.device | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """s·B side by side [d_out, Σ rank] and A on top of each other [Σ rank, d_in], float64."""
    import torch

    ranks = torch.tensor([term.increment.rank for term in terms])
    strengths = torch.tensor([term.strength.value for term in terms], dtype=torch.float64)
    # Moved and widened once, not term by term: a set of hundreds is thousands of small tensors.
    B = torch.cat([term.increment.B for term in terms], dim=1).to(device).to(torch.float64)
    A = torch.cat([term.increment.A for term in terms]).to(device).to(torch.float64)
    return B.mul_(strengths.repeat_interleave(ranks).to(B.device)), A


def _bound_of(B: torch.Tensor) -> float:
    return float(B.abs().sum(dim=1).max())


def composed(base: torch.Tensor, terms: Sequence[Term]) -> torch.Tensor:
    """The value of a parameter under a set of patches.

    One exact float64 sum of increments, one float64 addition of the base, one rounding to float32, one to the
    parameter's own dtype; each step is a single IEEE 754 operation, so every device gives the same bits. Where the sum
    is zero the weight keeps its bits.

    Args:
        base: pristine weights [d_out, d_in]; float16, bfloat16 or float32. Never changed.
        terms: what the stack adds; empty gives a copy of the base.

    Raises:
        AlgebraError: a dtype or shape that does not fit.
        BoundExceededError: see `increment_sum`.
        NotFiniteError: the result overflows the parameter's dtype, or the base is not finite.
    """
    import torch

    if base.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise AlgebraError(f"weights are {base.dtype}: expected float16, bfloat16 or float32")
    if not terms:
        return base.detach().clone()
    B, A = _checked(terms, base.device)
    if (B.shape[0], A.shape[1]) != base.shape:
        raise AlgebraError(
            f"an increment of shape {[B.shape[0], A.shape[1]]} does not fit weights of shape {[*base.shape]}"
        )
    result = torch.empty_like(base, requires_grad=False)
    step = _BLOCK if base.device.type == "cpu" else base.shape[0]
    blocks = _Blocks(min(step, base.shape[0]), base.shape[1], base.device)
    for start in range(0, base.shape[0], step):
        rows = slice(start, start + step)
        blocks.round_into(result[rows], base.detach()[rows], B[rows], A)
    if not is_finite(result):
        raise NotFiniteError(
            f"the patched weights are not finite in {base.dtype}: expected finite numbers",
            hint="rasura patch apply ID... --model DIR --strength 0.5",
        )
    return result


class _Blocks:
    """Room for the values of some rows, in float64 and in float32, that all blocks of a parameter use in turn."""

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        import torch

        self._sums = torch.empty(rows, width, dtype=torch.float64, device=device)
        self._singles = torch.empty(rows, width, dtype=torch.float32, device=device)

    def round_into(self, result: torch.Tensor, base: torch.Tensor, B: torch.Tensor, A: torch.Tensor) -> None:
        """The base plus B·A, rounded to float32 and then to the result's dtype."""
        import torch

        sums, singles = self._sums[: len(base)], self._singles[: len(base)]
        torch.mm(B, A, out=sums)
        if _has_negative_zero(base):
            # A sum of zeros has the sign that the GEMM gives it. x + (-0.0) is x to the bit, -0.0 too.
            sums.masked_fill_(sums == 0, -0.0)
        singles.copy_(base)  # exact; a sum of float64 and float16 would take a slower way to the same bits
        sums += singles
        singles.copy_(sums)
        result.copy_(singles)


def _has_negative_zero(values: torch.Tensor) -> bool:
    """Told by the bits: -0.0 is the smallest of all integers."""
    import torch

    integers = torch.int16 if values.element_size() == 2 else torch.int32  # noqa: PLR2004  # bytes
    return int(values.view(integers).min()) == torch.iinfo(integers).min
