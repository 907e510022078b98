"""Versions of a concept: which registered patch supersedes which.

A manifest names the patches that it supersedes, and a patch's identity covers its manifest, so there are no circles. It
may name patches that were never here, and long chains; every walk visits a patch once and ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import PatchRecord
from rasura.registry.registry import Registry

__all__ = ["Versions"]


@dataclass(frozen=True, slots=True)
class Versions:
    """The patches of one base, and what supersedes what.

    Attributes:
        records: every registered patch of the base.
        concepts: what each erases, in one spelling.
        later: from a patch to those that name it as superseded.
    """

    records: Mapping[PatchId, PatchRecord]
    concepts: Mapping[PatchId, frozenset[str]]
    later: Mapping[PatchId, tuple[PatchId, ...]]

    @classmethod
    def of(cls, registry: Registry, base: Digest) -> Versions:
        """Read the manifests of all patches of a base.

        Raises:
            NotFoundError, DigestMismatchError, FormatError: a manifest is missing or damaged.
        """
        records = {record.patch_id: record for record in registry.patches(base=base)}
        later: dict[PatchId, list[PatchId]] = {}
        for record in records.values():
            for old in registry.list_superseded(record):
                later.setdefault(old, []).append(record.patch_id)
        concepts = {patch_id: frozenset(map(normal, record.concepts)) for patch_id, record in records.items()}
        return cls(records, concepts, {old: tuple(new) for old, new in later.items()})

    def after(self, patch_id: PatchId) -> frozenset[PatchId]:
        """Every patch that supersedes this one, directly or by way of others."""
        found: set[PatchId] = set()
        ahead = [patch_id]
        while ahead:
            for new in self.later.get(ahead.pop(), ()):
                if new not in found and new != patch_id:
                    found.add(new)
                    ahead.append(new)
        return frozenset(found)

    def newest(self, patch_id: PatchId) -> PatchId:
        """The patch itself, or of those that supersede it and are not superseded, the one registered last."""
        heads = [new for new in self.after(patch_id) if not self.later.get(new)]
        return max(heads, key=lambda new: (self.records[new].added_at, new), default=patch_id)

    def rivals(self, patch_id: PatchId, others: Iterable[PatchId]) -> tuple[PatchId, ...]:
        """Those of `others` that are versions of the same: of the same concept, or one superseding the other."""
        concepts, after = self._concepts(patch_id), self.after(patch_id)
        return tuple(
            other
            for other in others
            if other != patch_id
            and (other in after or patch_id in self.after(other) or concepts & self._concepts(other))
        )

    def clash(self, members: Iterable[PatchId]) -> tuple[PatchId, PatchId] | None:
        """Two of these that are versions of the same, the older one first where one supersedes the other."""
        listed = dict.fromkeys(members)
        first: dict[str, PatchId] = {}
        for patch_id in listed:
            for new in sorted(self.after(patch_id)):
                if new in listed:
                    return patch_id, new
            for concept in sorted(self._concepts(patch_id)):
                if (other := first.setdefault(concept, patch_id)) != patch_id:
                    return other, patch_id
        return None

    def _concepts(self, patch_id: PatchId) -> frozenset[str]:
        return self.concepts.get(patch_id, frozenset())
