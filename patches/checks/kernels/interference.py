"""How much every patch disturbs every other: all ordered pairs, as streamed matrix products.

For patches p and q with kernels K and targets T (see `footprint`), the share of q's effect that p disturbs is

    pair(p, q) = ‖K_p T_q‖ / ‖K_q T_q‖

With the kernels of all patches below each other and all targets side by side, a block of rows is one GEMM, a square,
and a sum over the rows of each p and the columns of each q. Memory is a few blocks, however many patches there are.

    table = Interference(footprints)
    for rows, shares in table.blocks(): …          # shares [len(rows), N] float64
    disturbs, disturbed = table.against(newcomer)  # its shares of all others, and theirs of it

What neither reads is left out: where two patches read no space in common, the share is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from rasura.patches._io.arrays import Array
from rasura.patches.checks.kernels.footprint import Footprint, Space, share, spaces_of, targets_in
from rasura.patches.checks.kernels.pair_table import PairTable, divide
from rasura.patches.format.patch import Patch
from rasura.patches.types import ParamName, PatchId


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """Matrices of many patches in one space, one after the other.

    Attributes:
        values: kernels [Σk, d] or targets [Σm, d] (as rows), float64.
        owner: [Σ] int64, ascending: which patch a row belongs to.
        count: number of patches, also of those without rows.
    """

    values: torch.Tensor
    owner: torch.Tensor
    count: int

    @classmethod
    def of(cls, parts: Sequence[Array | None]) -> Stacked:
        """Stack rows [k, d] of patches; None where a patch has none."""
        sizes = torch.tensor([0 if part is None else part.shape[0] for part in parts], dtype=torch.int64)
        owner = torch.repeat_interleave(torch.arange(len(parts)), sizes)  # [Σ]
        return cls(torch.cat([torch.from_numpy(part) for part in parts if part is not None]), owner, len(parts))

    def to(self, device: torch.device | str) -> Stacked:
        """The same on a device."""
        return Stacked(self.values.to(device), self.owner.to(device), self.count)

    def patches(self, start: int, stop: int) -> Stacked:
        """Those of the patches start … stop-1, counted from 0."""
        # owners ascend, so rows of neighbours lie together
        ends = torch.searchsorted(self.owner, torch.tensor([start, stop], device=self.owner.device))
        rows = slice(int(ends[0]), int(ends[1]))
        return Stacked(self.values[rows], self.owner[rows] - start, stop - start)

    @property
    def single(self) -> bool:
        """Whether every patch has exactly one row."""
        return self.count == int(self.owner.numel()) and bool(
            self.count == 0 or (self.owner[0] == 0 and self.owner[-1] == self.count - 1)
        )


def compute_energies(kernels: Stacked, targets: Stacked) -> torch.Tensor:
    """‖K_p T_q‖² for all p of the kernels and q of the targets, [P, Q] float64: one GEMM."""
    product = (kernels.values @ targets.values.T).square_()  # [Σk, Σm]
    # with one row a patch the product is the table already
    if not targets.single:
        sums = torch.zeros(product.shape[0], targets.count, dtype=product.dtype, device=product.device)
        product = sums.index_add_(1, targets.owner, product)  # [Σk, Q]
    if not kernels.single:
        sums = torch.zeros(kernels.count, product.shape[1], dtype=product.dtype, device=product.device)
        product = sums.index_add_(0, kernels.owner, product)  # [P, Q]
    return product


class Interference(PairTable):
    """All pairs of a fixed sequence of patches."""

    def __init__(
        self,
        footprints: Iterable[Footprint],
        strengths: Sequence[float] | None = None,
        *,
        effects: Sequence[float] | None = None,
        device: str = "cpu",
    ) -> None:
        """Stack the footprints.

        Args:
            footprints: of the patches, in the order of all results.
            strengths: factors of the disturbing patches; default 1. The disturbed ones count at strength 1, which is
                what they were made for.
            effects: the units, where the footprints' targets are not those that the patches were made for.
            device: where to multiply.
        """
        self._prints = tuple(footprints)
        units = [p.effect() for p in self._prints] if effects is None else list(effects)
        super().__init__(strengths, units, device)

    @property
    def patch_ids(self) -> tuple[PatchId, ...]:
        """Whose row and column is which."""
        return tuple(p.patch_id for p in self._prints)

    @cached_property
    def spaces(self) -> dict[Space, tuple[Stacked, Stacked]]:
        """Kernels and targets of all patches by space."""
        names = sorted({space for p in self._prints for space in p.kernels})
        found = {}
        for name in names:
            kernels = Stacked.of([p.kernels.get(name) for p in self._prints])
            targets = Stacked.of([p.targets[name].T if name in p.targets else None for p in self._prints])
            found[name] = (kernels.to(self._device), targets.to(self._device))
        return found

    def against(self, newcomer: Footprint) -> tuple[torch.Tensor, torch.Tensor]:
        """What a newcomer disturbs of each patch, and what each (at its strength) disturbs of it: two [N] float64."""
        out = torch.zeros(len(self._prints), dtype=torch.float64, device=self._device)
        back = torch.zeros_like(out)
        for name, (kernels, targets) in self.spaces.items():
            if name in newcomer.kernels:
                own = Stacked.of([newcomer.kernels[name]]).to(self._device)
                aims = Stacked.of([newcomer.targets[name].T]).to(self._device)
                out += compute_energies(own, targets)[0]  # the one row of [1, N]
                back += compute_energies(kernels, aims)[:, 0]  # the one column of [N, 1]
        effect = newcomer.effect()
        unit = torch.full_like(back, effect)
        return divide(out.sqrt(), self.effects).cpu(), divide(back.sqrt() * self._strengths, unit).cpu()

    def _shares(self, rows: range) -> torch.Tensor:
        total: torch.Tensor | None = None
        for kernels, targets in self.spaces.values():
            part = compute_energies(kernels.patches(rows.start, rows.stop), targets)
            total = part if total is None else total.add_(part)
        if total is None:
            return torch.zeros(len(rows), len(self._prints), dtype=torch.float64)
        # [rows, N]; a strength scales the disturbance
        moved = total.sqrt_().mul_(self._strengths[rows.start : rows.stop, None])
        return divide(moved, self.effects)

    def _ranges(self, block_bytes: int) -> Iterator[range]:
        widest = max((targets.values.shape[0] for _, targets in self.spaces.values()), default=1)
        tallest = max((kernels.values.shape[0] for kernels, _ in self.spaces.values()), default=1)
        rows_each = max(1, -(-tallest // max(1, len(self._prints))))  # rounded up: rows of a kernel, on average
        step = max(1, block_bytes // (8 * max(1, widest) * rows_each))  # 8 bytes a float64
        for start in range(0, len(self._prints), step):
            yield range(start, min(start + step, len(self._prints)))


def compute_angles(one: Footprint, other: Footprint) -> list[float]:
    """Cosines of the principal angles between what two patches detect, the largest first, over all common spaces.

    1: they look for the same direction; 0: orthogonal.
    """
    found: list[float] = []
    for space in one.kernels.keys() & other.kernels.keys():
        mine, theirs = _row_space(one.kernels[space]), _row_space(other.kernels[space])
        # singular values of a product of orthonormal rows; rounding lifts some over 1
        found += [min(1.0, value) for value in np.linalg.svd(mine @ theirs.T, compute_uv=False).tolist()]
    return sorted(found, reverse=True)


def compute_cosines(
    footprints: Sequence[Footprint], progress: Callable[[int, int], None] | None = None
) -> torch.Tensor:
    """The largest cosine of each pair, [N, N] float64, its diagonal 1."""
    table = torch.eye(len(footprints), dtype=torch.float64)
    for i, one in enumerate(footprints):
        if progress:
            progress(i, len(footprints))
        for j in range(i):
            table[i, j] = table[j, i] = max(compute_angles(one, footprints[j]), default=0.0)
    return table


def _row_space(rows: Array) -> Array:
    """Orthonormal rows that span the same, to 1e-12 of the largest singular value."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    kept: Array = right[values > 1e-12 * values[0]] if values.size and values[0] > 0 else right[:0]
    return kept


def group_by_parameter(one: Patch, other: Patch) -> dict[ParamName, float]:
    """The share of the other's effect that one disturbs, parameter by parameter: squares add up to the pair's."""
    effect = Footprint.of(other).effect()
    shared = spaces_of(one).keys() & spaces_of(other).keys()
    found = {}
    for space in shared:
        targets = torch.from_numpy(targets_in(other, space))
        for name in spaces_of(one)[space]:
            increment = one.tensors.increments[name]
            moved = increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ targets)
            found[name] = share(float(torch.linalg.vector_norm(moved)), effect)
    return dict(sorted(found.items()))
