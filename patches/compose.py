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
from rasura.patches.tensors import tensor_digest

if TYPE_CHECKING:
    import torch


_BLOCK: Final = 128
"""Rows that are composed at a time: their float64 values stay in the processor's cache."""


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
    total: torch.Tensor | None = None
    for term in terms:
        rows = term.increment.row_bound(term.strength)
        total = rows if total is None else total + rows
    return 0.0 if total is None else float(total.max())


def increment_sum(terms: Sequence[Term]) -> torch.Tensor:
    """Σ s·B·A as [d_out, d_in] float64, exact: one GEMM over the stacked factors.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
        BoundExceededError: the sum could round, so its bits would depend on the order.
    """
    _check_sum(terms)
    B, A = _stacked(terms)
    return B @ A


def beside(terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of Σ s·B·A for a layer that cannot be merged: s·B [d_out, Σ rank] and A [Σ rank, d_in], float64.

    Their order depends on the set of terms alone, so that a product in any dtype does, too.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
        BoundExceededError: see `increment_sum`.
    """
    _check_sum(terms)
    return _stacked(sorted(terms, key=_order))


def _order(term: Term) -> tuple[str, str, int]:
    return tensor_digest(term.increment.A), tensor_digest(term.increment.B), term.strength.sixteenths


def _check_sum(terms: Sequence[Term]) -> None:
    shapes = {term.increment.shape for term in terms}
    if len(shapes) != 1:
        raise AlgebraError(f"increments of one parameter must have one shape, got {sorted(shapes)}")
    bound = sum_bound(terms)
    if bound >= SUM_LIMIT:
        raise BoundExceededError(
            f"the stack may reach {bound:.4g}: expected less than {SUM_LIMIT:g}, beyond which float64 would round",
            hint="rasura patch apply ID... --model DIR --strength 0.5",
            bound=f"{bound:.6g}",
        )


def _stacked(terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor]:
    """s·B side by side [d_out, Σ rank] and A on top of each other [Σ rank, d_in], float64."""
    import torch

    responses = [term.increment.B.to(torch.float64) * term.strength.value for term in terms]
    return torch.cat(responses, dim=1), torch.cat([term.increment.A.to(torch.float64) for term in terms])


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
    moved = [Term(_on(term.increment, base.device), term.strength) for term in terms]
    _check_sum(moved)
    B, A = _stacked(moved)
    if (B.shape[0], A.shape[1]) != base.shape:
        raise AlgebraError(
            f"an increment of shape {[B.shape[0], A.shape[1]]} does not fit weights of shape {[*base.shape]}"
        )
    result = torch.empty_like(base)
    for start in range(0, base.shape[0], _BLOCK):
        rows = slice(start, start + _BLOCK)
        part = B[rows] @ A
        # A sum of products that are all zero has whatever sign the GEMM gives it. x + (-0.0) is x to the bit, -0.0 too.
        part.masked_fill_(part == 0, -0.0)
        part += base.detach()[rows]
        result[rows] = part.to(torch.float32)
    if not bool(torch.isfinite(result).all()):
        raise NotFiniteError(
            f"the patched weights are not finite in {base.dtype}: expected finite numbers",
            hint="rasura patch apply ID... --model DIR --strength 0.5",
        )
    return result


def _on(increment: Increment, device: torch.device) -> Increment:
    if increment.A.device == device:
        return increment
    return Increment(increment.A.to(device), increment.B.to(device))
