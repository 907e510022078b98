"""A patch in a stack: the patch, how strongly, and its identity."""

from __future__ import annotations

from dataclasses import dataclass, field

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.format.patch import Patch
from rasura.patches.types import PatchId


@dataclass(frozen=True, slots=True)
class Member:
    """A patch of a stack, at a strength.

    Attributes:
        patch: the patch.
        strength: its factor.
        patch_id: the patch's identity, hashed once.
    """

    patch: Patch
    strength: Strength = ONE
    patch_id: PatchId = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_id", self.patch.patch_id)
