"""What a motion un-erases: concepts that are erased before it, and after it not at all or less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import NotFoundError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import SHORT, PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import manifest_of

__all__ = ["Loss", "find_losses"]


@dataclass(frozen=True, slots=True)
class Loss:
    """A concept that comes back.

    Attributes:
        concept: which, as its patch spells it.
        before: the strength at which it is erased.
        after: the strength that stays; None where nothing does.
    """

    concept: str
    before: Strength
    after: Strength | None

    def __str__(self) -> str:
        return self.concept if self.after is None else f"{self.concept} (strength {self.before} -> {self.after})"


def find_losses(registry: Registry, before: Stack, after: Stack) -> tuple[Loss, ...]:
    """The concepts that `after` erases less than `before`, by any of their names.

    A patch that another one of the same concept replaces is no loss, whichever of them is newer.
    """
    if before == after:
        return ()
    names = {patch_id: _spoken(registry, patch_id) for patch_id in sorted({*before, *after})}
    held, left = _strengths(before, names), _strengths(after, names)  # by concept, whichever patches erase it
    return tuple(
        Loss(said, strength, left[key][1] if key in left else None)
        for key, (said, strength) in sorted(held.items())
        if key not in left or left[key][1].sixteenths < strength.sixteenths
    )


def _spoken(registry: Registry, patch_id: PatchId) -> tuple[str, ...]:
    """Everything that a patch erases, by all its names; the patch itself where it is not here."""
    try:
        manifest = manifest_of(registry, patch_id)
    except NotFoundError:
        return (patch_id[:SHORT],)
    return (manifest.concept.text, *manifest.names)


def _strengths(stack: Stack, names: Mapping[PatchId, tuple[str, ...]]) -> dict[str, tuple[str, Strength]]:
    """By concept in one spelling: how it is spelt, and the greatest strength at which something erases it."""
    found: dict[str, tuple[str, Strength]] = {}
    for patch_id, strength in stack.items():
        for concept in names[patch_id]:
            key = normal(concept)
            # A negative strength brings more of a concept; of several patches the strongest counts.
            if strength.sixteenths > 0 and (key not in found or found[key][1].sixteenths < strength.sixteenths):
                found[key] = concept, strength
    return found
