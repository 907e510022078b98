"""What happened lately, one line an event: a motion that was begun and done is one event, not two entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.registry import Registry

__all__ = ["RecentEvent", "find_ticket", "list_recent"]

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """One event.

    Attributes:
        entry: the entry that ended it, or the one that began it where nothing did.
        open: whether it was begun and never ended.
        concepts: what its patches erase, as far as they are here.
        where: the model or stack that it is about, or "".
    """

    entry: EntryRecord
    open: bool
    concepts: tuple[str, ...]
    where: str


def list_recent(
    registry: Registry, which: EntryFilter, *, limit: int, stack: str | None = None
) -> tuple[RecentEvent, ...]:
    """The newest events first.

    Args:
        registry: where.
        which: what they are about.
        limit: at most so many.
        stack: only those about the stack of this name.
    """
    names = {record.patch_id: ", ".join(record.concepts) for record in registry.patches()}
    locations = {host.host_id: host.location for host in registry.hosts()}
    unfinished = {entry.index for entry in registry.unfinished()}
    found: list[RecentEvent] = []
    after: int | None = None
    while True:
        page = registry.entries(which, limit=_PAGE, after=after)
        for entry in page:
            ended = entry.outcome == "begun" and entry.index not in unfinished
            if ended or (stack is not None and entry.details.get("stack") != stack):
                continue
            where = str(entry.details.get("stack") or entry.details.get("location") or locations.get(entry.host or ""))
            concepts = tuple(names[p] for p in entry.patches if p in names)
            found.append(RecentEvent(entry, entry.index in unfinished, concepts, "" if where == "None" else where))
            if len(found) == limit:
                return tuple(found)
        if len(page) < _PAGE:
            return tuple(found)
        after = page[-1].index


def find_ticket(entry: EntryRecord) -> str:
    """The ticket of a takedown, or the case that it belongs to, or the reason that somebody gave, or ""."""
    return str(entry.details.get("ticket") or entry.details.get("case") or entry.reason)
