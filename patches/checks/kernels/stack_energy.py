"""What all patches of a stack do together, on any inputs.

The sum Σ_p s_p Δ_p acts on inputs X with the energy Σ_l ‖Σ_p s_p B_pl A_pl X‖². Parameters in which the same patches
have the same detectors form a *group*: with their responses side by side and below each other, QR = [B_pl], the energy
of the group is ‖R·diag(s)·A X‖², where A holds the detectors below each other. The factor R does not know the
strengths, so leaving a patch out, or counting it at another strength, is another diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from rasura.patches._io.arrays import Array
from rasura.patches.algebra.increment import Increment
from rasura.patches.checks.kernels.footprint import Space, hash_detector, norm, spaces_of, triangulate
from rasura.patches.format.patch import Patch
from rasura.patches.types import ParamName


@dataclass(frozen=True, slots=True, eq=False)
class SpaceGroup:
    """Parameters of one space that share all their detectors, and what patches promise about their inputs.

    Attributes:
        space: what they read.
        names: which.
        factor: R [k, Σr] float64.
        detectors: A [Σr, d] float64.
        owner: [Σr] int64, the patch of each detector by its place in the stack.
    """

    space: Space
    names: frozenset[ParamName]
    factor: Array
    detectors: Array
    owner: Array

    def moved(self, weights: Array, inputs: Array) -> Array:
        """R·(w ∘ A X) [k, m]: its norm is that of the group's outputs.

        Args:
            weights: strengths of the patches, [N], or [N, m] for each column.
            inputs: X [d, m].
        """
        chosen = weights[self.owner]  # [Σr] or [Σr, m]
        seen = self.detectors @ inputs  # [Σr, m]
        found: Array = self.factor @ (seen * (chosen[:, None] if chosen.ndim == 1 else chosen))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """The increments of a stack, grouped and factorised once."""

    groups: tuple[SpaceGroup, ...]

    @classmethod
    def of(cls, patches: Sequence[Patch]) -> Self:
        """Factorise a stack; parameters that read picture features are left out."""
        touching: dict[tuple[Space, ParamName], list[tuple[int, Increment]]] = {}
        for place, patch in enumerate(patches):
            for space, names in spaces_of(patch).items():
                for name in names:
                    touching.setdefault((space, name), []).append((place, patch.arrays.increments[name]))
        own = {name for patch in patches for name in patch.arrays.spans}  # these read, or promise, something of theirs
        grouped: dict[tuple[object, ...], list[ParamName]] = {}
        for (space, name), terms in sorted(touching.items()):
            # same patches, same detectors, same order
            alike = tuple((place, hash_detector(increment)) for place, increment in terms)
            grouped.setdefault((space, name if name in own else "", alike), []).append(name)
        return cls(tuple(_group(key[0], names, touching) for key, names in grouped.items()))

    def energy(self, weights: Array, inputs: Callable[[Space, ParamName], Array | None]) -> float:
        """‖Σ_p w_p Δ_p X‖ over all groups.

        Args:
            weights: [N] float64.
            inputs: the columns [d, m] that a parameter of a space reads, the same for all of a group; None where
                there are none.
        """
        found = ((group, inputs(group.space, min(group.names))) for group in self.groups)
        return norm(group.moved(weights, columns) for group, columns in found if columns is not None)


def _group(
    space: object,
    names: Sequence[ParamName],
    touching: dict[tuple[Space, ParamName], list[tuple[int, Increment]]],
) -> SpaceGroup:
    assert isinstance(space, str)
    terms = touching[space, names[0]]
    # [d_out, Σr] each
    responses = [np.concatenate([i.response for _, i in touching[space, name]], axis=1) for name in names]
    # the norm of the outputs survives, their number does not
    factor = triangulate(np.concatenate(responses).astype(np.float64))
    detectors = np.concatenate([increment.detector for _, increment in terms]).astype(np.float64)
    owner = np.repeat([place for place, _ in terms], [increment.rank for _, increment in terms])  # [Σr]
    return SpaceGroup(space, frozenset(names), factor, detectors, owner)
