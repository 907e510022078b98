"""Revoking a key: what it touches, said beforehand; when and why, said ever after.

Revoking is for good. From then on nothing is put on a model that only this key signed. What is in force already stays
until somebody takes it out, and keeps nobody from moving other patches of the same model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from rasura.patches.types import KeyId, PatchId
from rasura.registry._storage.records.records import Draft, KeyRecord, PatchRecord
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.registry import Registry

__all__ = ["Reach", "find_reach", "find_reason", "find_reasons", "find_uncounted", "revoke"]

_ACTION: Final = "key.revoke"
_KEY: Final = "key"


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a key reaches: what its revocation touches.

    Attributes:
        key: the key.
        patches: those that no other key which counts has signed.
        hosts: models on which such patches are in force, by location.
        stacks: named stacks that hold such patches.
    """

    key: KeyRecord
    patches: tuple[PatchRecord, ...]
    hosts: Mapping[str, tuple[PatchId, ...]]
    stacks: Mapping[str, tuple[PatchId, ...]]


def find_reach(registry: Registry, ref: str) -> Reach:
    """What the revocation of a key touches, or touched. Reads only.

    Args:
        registry: where.
        ref: the key's name, identifier or abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such key, or several.
    """
    key = registry.key(ref)
    others = {other.key_id for other in registry.keys() if _counts(other)} - {key.key_id}
    signed = _signers(registry)
    patches = tuple(
        patch
        for patch in registry.patches()
        if key.key_id in signed[patch.patch_id] and not signed[patch.patch_id] & others
    )
    mine = {patch.patch_id for patch in patches}
    hosts = {host.location: _of(mine, host.applied) for host in registry.hosts()}
    stacks = {stack.name: _of(mine, stack.patches) for stack in registry.stacks()}
    return Reach(key, patches, _some(hosts), _some(stacks))


def revoke(registry: Registry, ref: str, draft: Draft) -> Reach | None:
    """Revoke a key for good; None where that was done before, whose time and reason stay.

    Args:
        registry: where.
        ref: the key's name, identifier or abbreviation.
        draft: the entry; key and patches are filled in.

    Raises:
        NotFoundError, AmbiguousIdError: no such key, or several.
    """
    reach = find_reach(registry, ref)
    in_force = {patch_id for patches in reach.hosts.values() for patch_id in patches}
    details = {**draft.details, _KEY: reach.key.key_id, "signed": len(reach.patches), "in_force": len(in_force)}
    noted = replace(draft, patches=tuple(patch.patch_id for patch in reach.patches), details=details)
    return reach if registry.revoke_key(reach.key.key_id, registry.now(), noted) else None


def find_reason(registry: Registry, key_id: KeyId) -> str:
    """Why a key was revoked, as whoever did it said; "" where nothing was said."""
    return find_reasons(registry).get(key_id, "")


def find_reasons(registry: Registry) -> dict[KeyId, str]:
    """Why keys were revoked, of those of which it was said."""
    told = registry.entries(EntryFilter(action=_ACTION), newest=False)
    return {KeyId(str(entry.details[_KEY])): entry.reason for entry in told if entry.reason and _KEY in entry.details}


def find_uncounted(registry: Registry, among: Collection[PatchId] | None = None) -> dict[PatchId, KeyRecord]:
    """Patches that no key which counts here has signed any more, and the key that did so first.

    Args:
        registry: where.
        among: of these patches; None: of all.
    """
    keys = {key.key_id: key for key in registry.keys()}
    good = [key_id for key_id, key in keys.items() if _counts(key)]
    found = registry.patches_not_signed_by(good)
    return {
        patch.patch_id: keys[patch.key_id]
        for patch in found
        if patch.key_id is not None and (among is None or patch.patch_id in among)
    }


def _counts(key: KeyRecord) -> bool:
    return key.trusted and key.revoked_at is None


def _signers(registry: Registry) -> dict[PatchId, set[KeyId]]:
    """Who signed each patch."""
    found = {patch.patch_id: {patch.key_id} if patch.key_id else set() for patch in registry.patches()}
    for signature in registry.signatures():
        found[signature.patch_id].add(signature.key_id)
    return found


def _of(mine: set[PatchId], patches: Iterable[PatchId]) -> tuple[PatchId, ...]:
    return tuple(patch_id for patch_id in patches if patch_id in mine)


def _some(found: Mapping[str, tuple[PatchId, ...]]) -> dict[str, tuple[PatchId, ...]]:
    return {name: patches for name, patches in sorted(found.items()) if patches}
