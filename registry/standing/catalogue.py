"""The registered patches as a list: where each is in force, what supersedes it, for which ticket it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import PatchRecord
from rasura.registry.registry import Registry
from rasura.registry.standing.recent import find_ticket
from rasura.registry.standing.successors import Lineage

__all__ = ["Listed", "PatchFilter", "list_patches"]

_MADE: Final = ("patch.erase", "patch.rebase", "patch.join", "patch.retarget", "patch.adopt", "patch.add", "patch.pull")
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class PatchFilter:
    """Which patches a list shows; what is None or False does not matter.

    Attributes:
        concept: those that erase it, by whichever of its names, however it is spelt.
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
        names: what its concept is called besides.
    """

    record: PatchRecord
    base: str
    in_force: tuple[str, ...]
    superseded_by: PatchId | None
    ticket: str
    names: tuple[str, ...] = ()


def list_patches(
    registry: Registry, which: PatchFilter, *, limit: int | None = None, before: str | None = None
) -> tuple[tuple[Listed, ...], bool]:
    """The patches that are asked for, the oldest first.

    Args:
        registry: where.
        which: what they must be.
        limit: only so many of the newest.
        before: only those that came before this one.

    Returns:
        The patches, and whether the limit left older ones out.

    Raises:
        NotFoundError: no such base, or no such patch to go on from.
    """
    names = {base.digest: base.name for base in registry.bases()}
    retired, places = registry.retired_patches(), _find_places(registry)
    found: list[Listed] = []
    with Lineage(registry) as lineage:
        for page in _read_pages(registry, which, limit, before):
            called, newer = lineage.other_names(page), lineage.successors(page)
            told = registry.first_entries([record.patch_id for record in page], _MADE)
            for record in page:
                listed = Listed(
                    record,
                    names.get(record.base, record.base),
                    tuple(places.get(record.patch_id, ())),
                    newer.get(record.patch_id),
                    find_ticket(told[record.patch_id]) if record.patch_id in told else "",
                    called.get(record.patch_id, ()),
                )
                if (record.patch_id in retired) == which.retired and _fits(listed, which):
                    found.append(listed)
            if limit is not None and len(found) > limit:
                return tuple(reversed(found[:limit])), True
    return tuple(reversed(found)), False


def _read_pages(
    registry: Registry, which: PatchFilter, limit: int | None, before: str | None
) -> Iterator[tuple[PatchRecord, ...]]:
    """The records, the newest first; a first page of the limit's size, because that is often enough."""
    base = None if which.base is None else registry.base(which.base).digest
    last = None if before is None else registry.patch(before).patch_id
    size = _PAGE if limit is None else min(limit + 1, _PAGE)
    while page := registry.page_patches(size, before=last, base=base):
        yield page
        last, size = page[-1].patch_id, _PAGE


def _find_places(registry: Registry) -> Mapping[PatchId, list[str]]:
    """By patch the models that it is on."""
    places: dict[PatchId, list[str]] = {}
    for host in registry.hosts():
        for patch_id in host.applied:
            places.setdefault(patch_id, []).append(host.location)
    return places


def _fits(listed: Listed, which: PatchFilter) -> bool:
    record = listed.record
    return not (
        (which.concept is not None and normal(which.concept) not in map(normal, (*record.concepts, *listed.names)))
        or (which.method is not None and which.method != record.method)
        or (which.in_force and not listed.in_force)
        or (which.superseded and listed.superseded_by is None)
        or (which.current and listed.superseded_by is not None)
    )
