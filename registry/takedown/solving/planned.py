"""What a plan registers, and what it brings to strength 1."""

from __future__ import annotations

from dataclasses import dataclass

from rasura.patches.algebra.strength import Strength
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import PatchId
from rasura.registry.takedown.wanted import WantedConcept

__all__ = ["PlannedPatch", "Raised"]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedPatch:
    """A patch that the plan would register.

    Attributes:
        patch: the patch, not yet signed.
        words: what it retains.
        supersedes: the older patch whose place it takes.
        wanted: what was asked for; None for an older concept that was solved anew.
    """

    patch: Patch
    words: RetainSet | None
    supersedes: PatchId | None
    wanted: WantedConcept | None


@dataclass(frozen=True, slots=True)
class Raised:
    """What is wanted, and the patch that is brought to strength 1 for it.

    Attributes:
        wanted: what was asked for.
        patch: whose patch erases it at strength 1.
        before: at which strength it stands now.
    """

    wanted: WantedConcept
    patch: PatchId
    before: Strength
