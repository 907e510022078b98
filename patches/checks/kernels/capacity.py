"""How much room is left: the dimensions that a stack takes of what its parameters read.

A patch can leave something alone only by being orthogonal to it, and a space of d dimensions has d of those. They go
to

    invariants   start of text and the null prompt, which no patch may touch
    retained     what the patches promised to keep, set by set: of each, the directions in which what the others leave
                 over has about the energy that it keeps at least. Sets that differ by a concept count nearly as one
    patches      what of their targets lies outside all that: the next patch that leaves these alone must avoid it
    free         the rest

Of a patch's targets the directions count that carry a share `GUARD` of their energy: those that `--protect` avoids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from rasura.patches._io.arrays import Array
from rasura.patches.checks.kernels.footprint import Space, spaces_of, targets_in, triangulate
from rasura.patches.checks.kernels.weigh import digest_span
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch import Patch
from rasura.patches.format.patch_arrays import SpanArrays

GUARD: Final = 0.9999
"""Share of each guarded patch's target energy outside the protected span that stays untouched."""
LOW: Final = 0.9
"""Share of the dimensions from which a warning is due."""
_LEFT: Final = 0.25
"""Share of the least energy that a set keeps: what others leave of a direction counts from here on."""
_NOISE: Final = 1e-7
"""Share of the targets' norm below which what lies outside is rounding."""
_SAME: Final = 1e-6
"""Sine of the angle below which two directions are one."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Dimensions of the text embedding.

    Attributes:
        width: d.
        invariants: taken by the null prompt.
        retained: taken by retain sets.
        patches: taken by targets.
    """

    width: int
    invariants: int
    retained: int
    patches: int

    @classmethod
    def of(cls, patches: Sequence[Patch]) -> Self | None:
        """The room that a stack takes, in the fullest space of text; None where its parameters read none."""
        further = {space for patch in patches for space in patch.manifest.protected.spaces.values()}
        found = [cls._in_space(patches, space) for space in (TEXT, *sorted(further))]
        return max((room for room in found if room is not None), key=lambda room: room.share, default=None)

    @classmethod
    def _in_space(cls, patches: Sequence[Patch], space: Space) -> Self | None:
        reading = [patch for patch in patches if space in spaces_of(patch)]
        if not reading:
            return None
        spans = {}
        for patch in reading:
            own = [patch.arrays.span_of(name) for name in spaces_of(patch)[space]]
            span = max(own, key=lambda each: int(each.rows.shape[0]))  # the one that keeps most
            invariants = patch.manifest.protected.basis.invariants
            spans[digest_span(span), invariants] = span, invariants
        null = _span([span.rows[:invariants] for span, invariants in spans.values()])  # [k0, d]
        kept = _retained([SpanArrays(own.rows[n:], own.energy[n:]) for _, (own, n) in sorted(spans.items())], null)
        both = np.concatenate([null, kept])  # [k0 + k, d], orthonormal
        parts = [_free(targets_in(patch, space), both) for patch in reading]
        # patches may share targets: their span, not their sum
        targets = _span([part for part in parts if part is not None] or [both[:0]])
        width = int(both.shape[1])
        taken = min(width, int(both.shape[0] + targets.shape[0]))
        return cls(width, int(null.shape[0]), int(both.shape[0] - null.shape[0]), taken - int(both.shape[0]))

    @property
    def free(self) -> int:
        """Dimensions left."""
        return self.width - self.invariants - self.retained - self.patches

    @property
    def share(self) -> float:
        """Share of the dimensions that is taken."""
        return 1 - self.free / self.width

    @property
    def low(self) -> bool:
        """Whether little is left."""
        return self.share >= LOW

    def __str__(self) -> str:
        """One line for people."""
        parts = f"{self.invariants} null prompt, {self.retained} retained, {self.patches} patches"
        return f"{self.width - self.free} of {self.width} dimensions taken ({parts}), {self.free} free"


def _retained(spans: Sequence[SpanArrays], null: Array) -> Array:
    """Orthonormal rows, outside the null prompt's, that hold what all retain sets together keep."""
    held = null
    for span in spans:
        kept = span.energy > 0  # guards have none: they are other patches' targets, which are counted as such
        if bool(kept.any()):
            rows, energy = span.rows[kept], span.energy[kept]
            # weighed: a direction counts by what prompts have along it
            left = (rows - (rows @ held.T) @ held) * np.sqrt(energy)[:, None]
            _, values, directions = np.linalg.svd(left, full_matrices=False)
            held = np.concatenate([held, directions[np.square(values) >= float(energy.min()) * _LEFT]])
    return held[null.shape[0] :]


def _free(targets: Array, rows: Array) -> Array | None:
    """Orthonormal rows of what of the targets lies outside; None where that is noise."""
    once = targets - rows.T @ (rows @ targets)
    left = once - rows.T @ (rows @ once)  # [d, m]
    if np.linalg.norm(left) <= _NOISE * np.linalg.norm(targets):
        return None
    directions, values, _ = np.linalg.svd(left, full_matrices=False)  # [d, min(d, m)]
    reached = np.square(values).cumsum()
    return np.ascontiguousarray(directions[:, : int((reached < GUARD * reached[-1]).sum()) + 1].T)


def _span(parts: Sequence[Array]) -> Array:
    """Orthonormal rows of all together."""
    stacked = np.concatenate(list(parts))
    if stacked.shape[0] == 0:
        return stacked
    if stacked.shape[0] > stacked.shape[1]:
        stacked = triangulate(stacked)  # the same span in d rows
    _, values, rows = np.linalg.svd(stacked, full_matrices=False)
    kept: Array = rows[values > _SAME * values[0]]
    return kept
