"""What `all` means where somebody says which patches to leave alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import Digest, PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import manifest_of

__all__ = ["find_others"]


def find_others(
    registry: Registry, bases: Collection[Digest], concepts: Iterable[str], but: Collection[PatchId] = ()
) -> tuple[PatchId, ...]:
    """Every registered patch that a new one could leave alone: of its base, of other concepts, and in use.

    In use: neither superseded nor retired.

    Args:
        registry: where to look.
        bases: of these bases.
        concepts: not of these concepts, however they are spelt.
        but: none of these patches; they supersede nothing either.
    """
    own = {normal(concept) for concept in concepts}
    found = [record for record in registry.patches() if record.base in bases and record.patch_id not in but]
    old = {earlier for record in found for earlier in manifest_of(registry, record.patch_id).supersedes}
    old |= registry.retired_patches()
    others = [r for r in found if not own.intersection(map(normal, r.concepts)) and r.patch_id not in old]
    return tuple(record.patch_id for record in others)
