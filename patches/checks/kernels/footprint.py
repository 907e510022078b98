"""What a check needs of a patch: its kernel, its targets and its promise, in a few small matrices.

The output energy of a patch on inputs X, summed over the parameters it touches, is

    Σ_l ‖B_l A_l X‖²  =  ‖K X‖²        K = R·A,  QR = [B_1; B_2; …] for parameters that share the detector A

so a patch of rank r with one detector for all its parameters is r rows of length d, whatever they write to. Rows of
parameters with detectors of their own stand below each other. The factorisation costs 1e-16 of the responses' norm;
ΔW is never built.

Parameters read different things: text embeddings (one space for all of them), or other states, inside the text encoder
or of another of its layers (a space for those that read the same). Those that read picture features have no inputs that
text could tell, and no kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from rasura.patches._io.arrays import Array
from rasura.patches.algebra.increment import Increment
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch import Patch
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.types import ParamName, PatchId

Space: TypeAlias = str
"""TEXT, or what other states are called: those that several parameters read, or the name of the one that does."""


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """One patch at strength 1.

    Attributes:
        patch_id: whose.
        kernels: [k, d] float64 for each space that the patch reads.
        targets: [d, m] float64, the concept's columns there.
    """

    patch_id: PatchId
    kernels: Mapping[Space, Array]
    targets: Mapping[Space, Array]

    @classmethod
    def of(cls, patch: Patch) -> Self:
        """The footprint of a patch, from its stored factors and columns."""
        spaces = spaces_of(patch)
        increments = patch.arrays.increments
        kernels = {space: compute_kernel([increments[name] for name in names]) for space, names in spaces.items()}
        targets = {space: targets_in(patch, space) for space in spaces}
        return cls(patch.patch_id, kernels, targets)

    def effect(self) -> float:
        """‖Δ T‖ on its own targets, over all spaces."""
        return norm(self.kernels[space] @ self.targets[space] for space in self.kernels)

    def on(self, other: Footprint) -> float:
        """‖Δ T_q‖ on another patch's targets, in the spaces that both read."""
        return norm(self.kernels[s] @ other.targets[s] for s in self.kernels.keys() & other.kernels.keys())


def spaces_of(patch: Patch) -> dict[Space, list[ParamName]]:
    """The touched parameters by what they read; those that read picture features are left out."""
    reads = patch.manifest.protected.reads
    found: dict[Space, list[ParamName]] = {}
    for name in sorted(patch.arrays.increments):
        what = reads.get(name, TEXT)
        if what == TEXT:
            found.setdefault(TEXT, []).append(name)
        elif what != IMAGE and (space := patch.arrays.space_of(name)) in patch.arrays.pairs:
            found.setdefault(space, []).append(name)  # without columns there is nothing to measure on
    return found


def find_measured_only(patch: Patch) -> tuple[ParamName, ...]:
    """The parameters of a patch for which nothing is promised that algebra could check, sorted."""
    reads, arrays = patch.manifest.protected.reads, patch.arrays
    # rows without energy promise nothing either: whatever leaks on them counts as nothing
    bare = {name for name in arrays.increments if not bool((arrays.span_of(name).energy > 0).any())}
    return tuple(sorted(bare | {name for name, what in reads.items() if what == IMAGE}))


def proves(patch: Patch) -> bool:
    """Whether every increment promises something that algebra can check, by its tensors, whatever its manifest says."""
    return not find_measured_only(patch)


def targets_in(patch: Patch, space: Space) -> Array:
    """The concept's columns [d, m] float64 as the parameters of a space read them."""
    arrays = patch.arrays
    return (arrays.targets if space == TEXT else arrays.pairs[ParamName(space)].targets).T


def compute_kernel(increments: Sequence[Increment]) -> Array:
    """K [k, d] float64 with ‖K X‖² = Σ_l ‖B_l A_l X‖², k at most d."""
    rows = [
        # R·A [r, d]: R is r × r, however many outputs there are
        triangulate(np.concatenate([i.response for i in group]).astype(np.float64))
        @ group[0].detector.astype(np.float64)
        for group in group_by_detector(increments)
    ]
    return compact(rows[0] if len(rows) == 1 else np.concatenate(rows))


def group_by_detector(increments: Iterable[Increment]) -> list[list[Increment]]:
    """Increments that share a detector to the bit stand together."""
    groups: dict[bytes, list[Increment]] = {}
    for increment in increments:
        groups.setdefault(hash_detector(increment), []).append(increment)
    return list(groups.values())


def hash_detector(increment: Increment) -> bytes:
    """The bytes of A: equal for parameters that share a detector."""
    # compared as bytes: equal on the grid is equal to the bit
    return increment.detector.tobytes()


def compact(rows: Array) -> Array:
    """At most d rows [k, d] with the same ‖rows · X‖ for every X."""
    return triangulate(rows) if rows.shape[0] > rows.shape[1] else rows


def triangulate(rows: Array) -> Array:
    """R [min(k, d), d] of rows = Q·R: RᵀR = rowsᵀ·rows, so norms and inner products of columns stay."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def norm(parts: Iterable[Array]) -> float:
    """The Frobenius norm of several matrices together."""
    return float(sum(float(np.square(part).sum()) for part in parts) ** 0.5)


def share(changed: float, present: float) -> float:
    """A ratio that a missing or absurd denominator makes infinite, never small."""
    if present > 0:
        return changed / present
    return 0.0 if changed == 0 else float("inf")  # a limit must refuse what cannot be weighed
