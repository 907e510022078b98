"""The prior shift of a retained vector: how far an erasure without regard for anything retained would move it.

    Δ = W D (I/κ + C1ᵀC1)⁻¹ C1ᵀ        s(c) = ‖Δc‖

is SPEED's Δ_erase (arXiv 2503.07392, section 3.2) in its n × n form. With z = E c of length min(N, d), the same for all
layers, and a small triangular R for each, s(c) = ‖R z‖ costs N² a layer, not o·d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeAlias

import torch

from rasura.patches.algebra.protected_subspace import EXACT
from rasura.patches.erasers.closed_form.least_squares import detector, gram, protect_nothing
from rasura.patches.types import ParamName

Group = Mapping[ParamName, "torch.Tensor"]
"""Layers that share a detector, as float64 weights [o_l, d]; to the filter they are one layer, one under the other."""
Direction: TypeAlias = "Callable[[], torch.Tensor]"
"""The least direction of a group, computed when it is first asked for."""


@dataclass(frozen=True, slots=True)
class Choices:
    """How to filter and augment.

    Attributes:
        ipf: whether retained vectors are filtered at all.
        alpha: factor on the mean that a shift must pass.
        squared: compare squared shifts with their mean.
        aug: noisy copies of each kept vector.
        chunked: the copies' mean is that of a piece of 128, not of all.
        reduced: the least direction among those with a singular value, not among all of the space.
        seed: of the noise.
    """

    ipf: bool
    alpha: float
    squared: bool
    aug: int
    chunked: bool
    reduced: bool
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """s(c) of one group: ‖R E c‖.

    Attributes:
        read: E [q, d], shared by all groups.
        size: R [p, q].
        direction: v [d], unit; costs half of a layer's solution, and is asked for where there is noise alone.
        squared: whether s is squared.
    """

    read: torch.Tensor
    size: torch.Tensor
    direction: Direction
    squared: bool

    @property
    def least(self) -> torch.Tensor:
        """V [d], the direction of the noise."""
        return self.direction()

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Shifts [...] of vectors [..., d]."""
        return self._norm(rows @ self.read.T @ self.size.T)

    def noisy(self, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Shifts [b, a] of c + t·v, for vectors c [b, d] and noise t [b, a]."""
        # [b, q], [q]: linear, so noise moves along one line
        moved, along = rows @ self.read.T @ self.size.T, self.size @ (self.read @ self.least)
        return self._norm(moved[:, None] + noise[:, :, None] * along)

    def _norm(self, moved: torch.Tensor) -> torch.Tensor:
        return moved.square().sum(-1) if self.squared else torch.linalg.vector_norm(moved, dim=-1)


def find_directions(groups: Sequence[Group], choices: Choices) -> tuple[Direction, ...]:
    """The least direction of every group: it depends on the weights alone, and is computed once, if at all."""
    return tuple(cache(partial(find_least_direction, group, reduced=choices.reduced)) for group in groups)


def shifts(
    groups: Sequence[Group],
    targets: torch.Tensor,
    change: torch.Tensor,
    weight: float,
    choices: Choices,
    *,
    directions: Sequence[Direction] | None = None,
) -> tuple[Shift, ...]:
    """The prior shift of every group.

    Args:
        groups: layers.
        targets: C1 [d, N].
        change: D = C* − C1 [d, N].
        weight: κ, by which C1 C1ᵀ and C* C1ᵀ count: 1 for sums, 1/n for means over n concepts.
        choices: squared or not; which least direction.
        directions: `find_directions` of the groups, for whoever asks for shifts again.
    """
    read = detector(targets, protect_nothing, 1 / weight)  # κ D C1ᵀ (I + κ C1C1ᵀ)⁻¹ = D (I/κ + C1ᵀC1)⁻¹ C1ᵀ
    # more columns than dimensions: D·read [d, d] is the smaller of the two
    if read.shape[0] > read.shape[1]:
        read, change = torch.eye(read.shape[1], dtype=torch.float64), change @ read
    known = find_directions(groups, choices) if directions is None else directions
    return tuple(
        Shift(read, _triangle(group, change), direction, choices.squared)
        for group, direction in zip(groups, known, strict=True)
    )


def find_least_direction(group: Group, *, reduced: bool) -> torch.Tensor:
    """The right-singular vector of the smallest singular value, [d]; its largest entry is positive.

    Args:
        group: layers, taken as one.
        reduced: with fewer outputs than inputs, the last direction that still has a singular value, as a reduced
            decomposition gives; else one that the layer does not see at all.
    """
    rows = sum(weight.shape[0] for weight in group.values())
    width = next(iter(group.values())).shape[1]
    # eigh sorts upwards: the first is the least; of W Wᵀ and WᵀW, the smaller that has it
    if reduced and rows < width:
        stacked = torch.cat(list(group.values()))  # [o, d]
        found = stacked.T @ torch.linalg.eigh(stacked @ stacked.T)[1][:, 0]
        if float(torch.linalg.vector_norm(found)) <= EXACT * float(torch.linalg.matrix_norm(stacked)):
            found = torch.linalg.eigh(gram(group))[1][:, width - rows]  # rows depend on each other: any of them
        found = found / torch.linalg.vector_norm(found)
    else:
        found = torch.linalg.eigh(gram(group))[1][:, 0]
    # eigh leaves the sign open; the noise must not depend on it
    direction: torch.Tensor = found * torch.sign(found[found.abs().argmax()])
    return direction


def _triangle(group: Group, change: torch.Tensor) -> torch.Tensor:
    """R [≤ q, q] with ‖R z‖ = ‖W D z‖ over the group's layers."""
    triangle: torch.Tensor = torch.linalg.qr(torch.cat([weight @ change for weight in group.values()]), mode="r")[1]
    return triangle
