"""The one arithmetic: W(S) = round(W_base + Σ s·B·A), a pure function of base and set.

Nothing here adds to present weights or subtracts from them. Whoever applies, reverts or switches asks for the value of
the new set, computed from the pristine base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import torch

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra import fused_add
from rasura.patches.algebra.light.layers import (
    Layer,
    Term,
    bound_sum,
    check_bound,
    check_fits,
    check_one_shape,
    check_weights,
    layers_of,
    not_finite,
)
from rasura.patches.algebra.one_thread import map_in_single_threads
from rasura.patches.algebra.rounding import Blocks
from rasura.patches.types import Digest, ParamName

__all__ = [
    "Layer",
    "Term",
    "bound_sum",
    "compose",
    "compose_all",
    "compose_beside",
    "compose_digested",
    "layers_of",
    "sum_increments",
]

R = TypeVar("R")

_BLOCK: Final = 256
"""Rows that a CPU composes at a time: their float64 values stay in its cache."""
_ROOM: Final = 2**26
"""Float64 values that other devices compose at a time: half a gigabyte."""
_ALONE: Final = ParamName("")


def sum_increments(terms: Sequence[Term]) -> torch.Tensor:
    """Σ s·B·A as [d_out, d_in] float64, exact: one GEMM over the stacked factors.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
        BoundExceededError: the sum could round, so its bits would depend on the order.
    """
    B, A = _checked(terms)
    return B @ A  # [d_out, d_in]; below the bound every partial sum is exact, so the order of adding cannot show


def compose_beside(terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of Σ s·B·A for a layer that cannot be merged: s·B [d_out, Σ rank] and A [Σ rank, d_in], float64.

    Their order depends on the set of terms alone, so that a product in any dtype does, too.

    Raises:
        AlgebraError: no terms, or terms of different shapes.
        BoundExceededError: see `sum_increments`.
    """
    return _checked(sorted(terms, key=_order))  # a sum in float16 rounds, so it is always added in one order


def _order(term: Term) -> tuple[str, str, int]:
    return digest_tensor(term.increment.A), digest_tensor(term.increment.B), term.strength.sixteenths


def _checked(terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor]:
    """The stacked factors, whose product cannot round."""
    B, A = _stacked(terms)
    _check_bound(B)
    return B, A


def _stacked(terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor]:
    return _responses(terms), _detectors(terms)


def _detectors(terms: Sequence[Term], device: torch.device | None = None) -> torch.Tensor:
    """A on top of each other [Σ rank, d_in], float64."""
    # Moved and widened once, not term by term: a set of hundreds is thousands of small tensors.
    return torch.cat([term.increment.A for term in terms]).to(device).to(torch.float64)


def _responses(terms: Sequence[Term], device: torch.device | None = None) -> torch.Tensor:
    """s·B side by side [d_out, Σ rank], float64."""
    check_one_shape(terms)
    strengths = [term.strength.value for term in terms for _ in range(term.increment.rank)]  # [Σ rank]
    B = torch.cat([term.increment.B for term in terms], dim=1).to(device).to(torch.float64)  # [d_out, Σ rank]
    # sixteenths times grid points: still exact in float64
    return B if set(strengths) == {1.0} else B.mul_(torch.tensor(strengths, dtype=torch.float64).to(B.device))


def _check_bound(B: torch.Tensor) -> None:
    check_bound(float(B.abs().sum(dim=1).max()))  # |A| ≤ 1, so a row of |B| bounds every entry of B·A


def compose(base: torch.Tensor, terms: Sequence[Term]) -> torch.Tensor:
    """The value of a parameter under a set of patches.

    One exact float64 sum of increments, one float64 addition of the base, one rounding to float32, one to the
    parameter's own dtype; each step is a single IEEE 754 operation, so every device gives the same bits. Where the sum
    is zero the weight keeps its bits.

    Args:
        base: pristine weights [d_out, d_in]; float16, bfloat16 or float32. Never changed.
        terms: what the stack adds; empty gives a copy of the base.

    Raises:
        AlgebraError: a dtype or shape that does not fit.
        BoundExceededError: see `sum_increments`.
        NotFiniteError: the result overflows the parameter's dtype, or the base is not finite.
    """
    check_weights(str(base.dtype))
    if not terms:
        return base.detach().clone()
    return compose_all({_ALONE: base}, [Layer(_ALONE, tuple(terms))])[_ALONE]


def compose_all(bases: Mapping[ParamName, torch.Tensor], layers: Iterable[Layer]) -> dict[ParamName, torch.Tensor]:
    """`composed` of several parameters, each with at least one term.

    Layers that share their detectors share one GEMM, as many of them as there is room for: on a CPU, small ones.

    Args:
        bases: pristine weights of each layer, on any devices.
        layers: what a stack adds.

    Raises:
        AlgebraError, BoundExceededError, NotFiniteError: see `composed`.
    """
    parts = _compose_parts(bases, layers, {}, lambda values: values)
    return {name: value for part in parts for name, value in part.items()}


def compose_digested(
    bases: Mapping[ParamName, torch.Tensor],
    layers: Iterable[Layer],
    rooms: Mapping[ParamName, torch.Tensor] | None = None,
) -> dict[ParamName, tuple[torch.Tensor, Digest]]:
    """As `compose_all`, with SHA-256 of each value, hashed while a core has it at hand.

    Args:
        bases: pristine weights of each layer.
        layers: what a stack adds.
        rooms: where the values go, of the bases' shapes and dtypes; without them into memory of their own.
    """
    parts = _compose_parts(
        bases, layers, rooms or {}, lambda values: {n: (value, digest_tensor(value)) for n, value in values.items()}
    )
    return {name: value for part in parts for name, value in part.items()}


def _compose_parts(
    bases: Mapping[ParamName, torch.Tensor],
    layers: Iterable[Layer],
    rooms: Mapping[ParamName, torch.Tensor],
    then: Callable[[dict[ParamName, torch.Tensor]], dict[ParamName, R]],
) -> Iterator[dict[ParamName, R]]:
    """What comes of the values of some layers after others; on a CPU several parts at a time, each in one thread."""
    listed = list(layers)
    elsewhere = any(bases[layer.name].device.type != "cpu" for layer in listed)  # which computes in threads of its own

    def work() -> Iterator[tuple[list[Layer], torch.Tensor]]:
        for group in _sharing(bases, listed):
            first = bases[group[0].name]
            A = _detectors(group[0].terms, first.device)  # [Σ rank, d_in], one for all layers of the group
            for part in _parts(group, bases, _rows_at_once(first)):
                yield part, A

    return map_in_single_threads(lambda each: then(_composed_part(*each, bases, rooms)), work(), alone=elsewhere)


def _rows_at_once(base: torch.Tensor) -> int:
    # a CPU wants blocks that stay in its caches
    return _BLOCK if base.device.type == "cpu" else max(_ROOM // base.shape[-1], 1)


def _sharing(bases: Mapping[ParamName, torch.Tensor], layers: Iterable[Layer]) -> list[list[Layer]]:
    """Layers on one device with the same detectors in the same order."""
    groups: list[list[Layer]] = []
    for layer in layers:
        alike = (g for g in groups if bases[g[0].name].device == bases[layer.name].device and _share(g[0], layer))
        if (group := next(alike, None)) is None:
            groups.append([layer])
        else:
            group.append(layer)
    return groups


def _share(one: Layer, other: Layer) -> bool:
    pairs = zip(one.terms, other.terms, strict=False)
    # equal detectors in another order would need another GEMM
    return len(one.terms) == len(other.terms) and all(
        # the same tensor needs no look at its numbers
        a.increment.detector is b.increment.detector or torch.equal(a.increment.A, b.increment.A)
        for a, b in pairs
    )


def _parts(group: Sequence[Layer], bases: Mapping[ParamName, torch.Tensor], limit: int) -> Iterator[list[Layer]]:
    """Layers of up to so many rows in all, or one layer of more."""
    part: list[Layer] = []
    rows = 0
    for layer in group:
        if part and rows + len(bases[layer.name]) > limit:
            yield part
            part, rows = [], 0
        part.append(layer)
        rows += len(bases[layer.name])
    yield part


def _composed_part(
    part: Sequence[Layer],
    A: torch.Tensor,
    bases: Mapping[ParamName, torch.Tensor],
    rooms: Mapping[ParamName, torch.Tensor],
) -> dict[ParamName, torch.Tensor]:
    fresh = [layer.name for layer in part if layer.name not in rooms]
    found = {name: torch.empty_like(bases[name], requires_grad=False) for name in fresh}
    found |= {layer.name: rooms[layer.name] for layer in part if layer.name in rooms}
    for layer in part:
        base = bases[layer.name]
        check_fits(str(base.dtype), tuple(base.shape), layer.terms[0].increment)
    B = torch.cat([_responses(layer.terms, A.device) for layer in part])  # [Σ d_out, Σ rank]
    _check_bound(B)
    blocks = Blocks(A, min(_rows_at_once(bases[part[0].name]), len(B)), fuse=fused_add.is_wanted(A.device))
    at = 0  # first row of B that belongs to the layer
    for layer in part:
        base = bases[layer.name].detach()
        blocks.round_into(found[layer.name], base, B, at)
        at += len(base)
    # once, at the end: asking a device for a number waits for all that it does
    if not blocks.finite():
        raise not_finite({str(value.dtype) for value in found.values()})
    return found
