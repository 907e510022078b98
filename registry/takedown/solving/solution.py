"""What came of an attempt to solve a takedown."""

from __future__ import annotations

from dataclasses import dataclass

from rasura.patches.checks.verdict import Verdict
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import PatchId

__all__ = ["Solution"]


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Patches that stand beside each other.

    Attributes:
        made: new ones, in no particular order.
        replaced: the older patch that a new one supersedes, by the new one's identifier.
        kept: older ones that stay as they are.
        words: what the new ones were made to retain.
        verdict: what the composer says of `made` and `kept` together.
        guard: share of each other concept's energy that was held.
        refused: what stood in the way of the attempts before.
        doubts: what speaks against the erasing of each that was made, in sentences.
    """

    made: tuple[Patch, ...]
    replaced: dict[PatchId, PatchId]
    kept: dict[PatchId, Patch]
    words: RetainSet | None
    verdict: Verdict
    guard: float
    refused: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
