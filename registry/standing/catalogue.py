"""The registered patches as a list: where each is in force, what supersedes it, for which ticket it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import PatchRecord
from rasura.registry.log.ledger import EntryFilter
from rasura.registry.registry import Registry
from rasura.registry.stacks.versions import Versions
from rasura.registry.standing.recent import find_ticket

__all__ = ["Listed", "PatchFilter", "list_patches"]

_MADE: Final = ("patch.erase", "patch.rebase", "patch.join", "patch.retarget", "patch.adopt", "patch.add", "patch.pull")


@dataclass(frozen=True, slots=True)
class PatchFilter:
    """Which patches a list shows; what is None or False does not matter.

    Attributes:
        concept: those that erase it, however it is spelt.
        base: those of this base: its name, digest or abbreviation.
        method: those that this eraser made.
        in_force: those that are applied somewhere.
        superseded: those that another one supersedes.
        current: those that none supersedes.
        retired: the retired ones in place of the others.
    """

    concept: str | None = None
    base: str | None = None
    method: str | None = None
    in_force: bool = False
    superseded: bool = False
    current: bool = False
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A patch of the list.

    Attributes:
        record: the patch.
        base: name of its base, or the digest where the base is not here.
        in_force: locations of the models that it is applied to.
        superseded_by: the newest patch that supersedes it.
        ticket: of the takedown that made it, or the reason that was given; "" where there is none.
    """

    record: PatchRecord
    base: str
    in_force: tuple[str, ...]
    superseded_by: PatchId | None
    ticket: str


def list_patches(registry: Registry, which: PatchFilter) -> tuple[Listed, ...]:
    """The patches that are asked for, the oldest first.

    Raises:
        NotFoundError: no such base.
    """
    bases = {base.digest: base.name for base in registry.bases()}
    digest = None if which.base is None else registry.base(which.base).digest
    retired, tickets = registry.retired_patches(), _tickets(registry)
    places: dict[PatchId, list[str]] = {}
    for host in registry.hosts():
        for patch_id in host.applied:
            places.setdefault(patch_id, []).append(host.location)
    versions: dict[str, Versions] = {}
    found = []
    for record in registry.patches(base=digest):
        if record.base not in versions:
            versions[record.base] = Versions.of(registry, record.base)
        newest = versions[record.base].newest(record.patch_id)
        listed = Listed(
            record,
            bases.get(record.base, record.base),
            tuple(places.get(record.patch_id, ())),
            newest if newest != record.patch_id else None,
            tickets.get(record.patch_id, ""),
        )
        if (record.patch_id in retired) == which.retired and _fits(listed, which):
            found.append(listed)
    return tuple(found)


def _fits(listed: Listed, which: PatchFilter) -> bool:
    record = listed.record
    return not (
        (which.concept is not None and normal(which.concept) not in map(normal, record.concepts))
        or (which.method is not None and which.method != record.method)
        or (which.in_force and not listed.in_force)
        or (which.superseded and listed.superseded_by is None)
        or (which.current and listed.superseded_by is not None)
    )


def _tickets(registry: Registry) -> Mapping[PatchId, str]:
    """By patch what the first entry says that brought it here."""
    found: dict[PatchId, tuple[int, str]] = {}
    for action in _MADE:
        for entry in registry.entries(EntryFilter(action=action, outcome="success")):
            for patch_id in entry.patches:
                if patch_id not in found or entry.index < found[patch_id][0]:
                    found[patch_id] = entry.index, find_ticket(entry)
    return {patch_id: ticket for patch_id, (_, ticket) in found.items()}
