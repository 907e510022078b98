"""What a stack does to each parameter, and whether that can be said exactly: the rules of composing, in whatever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rasura.patches._io.arrays import Array
from rasura.patches.algebra.increment import SUM_LIMIT, Increment
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AlgebraError, BoundExceededError, NotFiniteError
from rasura.patches.plain_numbers import say_beside
from rasura.patches.types import ParamName

__all__ = [
    "Layer",
    "Term",
    "bound_sum",
    "check_bound",
    "check_fits",
    "check_one_shape",
    "check_weights",
    "layers_of",
    "not_finite",
    "stack_detectors",
    "stack_responses",
]

_WEIGHTS = ("float16", "bfloat16", "float32")


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


def bound_sum(terms: Sequence[Term]) -> float:
    """An upper bound of Σ|s||B||A| over all entries, exact in float64: the largest Σ_p Σ_k |s_p·B_ok| of any row."""
    # |A| ≤ 1, so a row of |B| bounds every entry of B·A
    return float(np.abs(stack_responses(terms)).sum(axis=1).max()) if terms else 0.0


def stack_detectors(terms: Sequence[Term]) -> Array:
    """A on top of each other [Σ rank, d_in], float64."""
    return np.concatenate([term.increment.detector for term in terms]).astype(np.float64)


def stack_responses(terms: Sequence[Term]) -> Array:
    """s·B side by side [d_out, Σ rank], float64.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
    """
    check_one_shape(terms)
    strengths = np.repeat([term.strength.value for term in terms], [term.increment.rank for term in terms])
    # sixteenths times grid points: still exact in float64
    found: Array = np.concatenate([term.increment.response for term in terms], axis=1) * strengths
    return found


def check_one_shape(terms: Sequence[Term]) -> None:
    """Refuse terms that cannot be added.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
    """
    shapes = {term.increment.shape for term in terms}  # (d_out, d_in)
    if len(shapes) != 1:
        raise AlgebraError(f"increments of one parameter must have one shape, got {sorted(shapes)}")


def check_bound(bound: float) -> None:
    """Refuse a sum that could round.

    Raises:
        BoundExceededError: its bits would depend on the order.
    """
    if bound >= SUM_LIMIT:
        reached, limit = say_beside(bound, SUM_LIMIT)
        raise BoundExceededError(
            f"the stack may reach {reached}: expected less than {limit}, beyond which float64 would round",
            hint="rasura patch apply ID... --model MODEL --strength 0.5",
            bound=f"{bound:.6g}",
        )


def check_weights(dtype: str) -> None:
    """Refuse weights in a type that nothing is composed in, named as torch does.

    Raises:
        AlgebraError: it is one.
    """
    if dtype.removeprefix("torch.") not in _WEIGHTS:
        raise AlgebraError(f"weights are {dtype}: expected float16, bfloat16 or float32")


def check_fits(dtype: str, shape: tuple[int, ...], increment: Increment) -> None:
    """Refuse weights that an increment cannot be added to.

    Raises:
        AlgebraError: a dtype or shape that does not fit.
    """
    check_weights(dtype)
    if increment.shape != shape:
        raise AlgebraError(f"an increment of shape {[*increment.shape]} does not fit weights of shape {[*shape]}")


def not_finite(dtypes: Iterable[str]) -> NotFiniteError:
    """The error for results that their dtypes, named as torch does, cannot hold."""
    return NotFiniteError(
        f"the patched weights are not finite in {' or '.join(sorted(dtypes))}: expected finite numbers",
        hint="rasura patch apply ID... --model MODEL --strength 0.5",
    )
