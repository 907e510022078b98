"""Entries of the log as the tables have them: listing, searching, and the checkpoints that were signed over them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import Session, aliased

from rasura.patches.types import PatchId
from rasura.registry._storage.database.tables import CheckpointRow, EntryPatchRow, EntryRow
from rasura.registry._storage.records.records import EntryRecord, Outcome
from rasura.registry.log.entries.entry import RowChange, decode

__all__ = [
    "CASE",
    "EntryFilter",
    "body_at",
    "changes_at",
    "changes_of",
    "every",
    "find_first",
    "find_unfinished",
    "newest_note",
    "note_at",
    "patches_of",
    "read_stored",
]

CASE = "case"
"""Detail of an entry: the identifiers of the cases that it belongs to, with spaces between."""
_BATCH = 500


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries a list shows; what is None does not matter."""

    patch: PatchId | None = None
    host: str | None = None
    action: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    """The earliest time."""
    case: str | None = None
    """A case that they may belong to: all that do are among those that are found, and perhaps others."""


def every(
    session: Session, which: EntryFilter, *, newest: bool, limit: int | None, after: int | None
) -> tuple[EntryRecord, ...]:
    """Entries in order of their index. `after` is the index from which a further page goes on, in that order."""
    order = EntryRow.position.desc() if newest else EntryRow.position
    query = select(EntryRow.position, EntryRow.body).order_by(order).limit(limit)
    for column, value in (
        (EntryRow.host, which.host),
        (EntryRow.action, which.action),
        (EntryRow.outcome, which.outcome),
    ):
        if value is not None:
            query = query.where(column == value)
    if which.since is not None:
        query = query.where(EntryRow.time >= which.since)
    if which.patch is not None:
        named = select(EntryPatchRow.position).where(EntryPatchRow.patch_id == which.patch)
        query = query.where(EntryRow.position.in_(named))
    if which.case is not None:
        query = query.where(_mentions(session, f'"{CASE}":"') & _mentions(session, which.case))
    if after is not None:
        query = query.where(EntryRow.position < after if newest else EntryRow.position > after)
    return tuple(_records(session, session.execute(query).all()))


def _mentions(session: Session, text: str) -> ColumnElement[bool]:
    """Whether an entry's bytes hold this ASCII text, which no JSON text escapes; the database looks by itself."""
    if session.connection().dialect.name == "sqlite":
        return func.instr(EntryRow.body, text.encode()) > 0
    return func.strpos(func.encode(EntryRow.body, "escape"), text) > 0


def read_stored(session: Session, *, batch: int = _BATCH) -> Iterator[tuple[bytes, Sequence[PatchId]]]:
    """Every entry's bytes, the oldest first, with the patches that lie beside it; memory does not grow with the log."""
    start = 0
    while True:
        query = select(EntryRow.position, EntryRow.body).where(EntryRow.position >= start)
        rows = session.execute(query.order_by(EntryRow.position).limit(batch)).all()
        if not rows:
            return
        beside = patches_of(session, [position for position, _ in rows])
        for position, body in rows:
            yield body, beside.get(position, ())
        start = rows[-1][0] + 1


def body_at(session: Session, index: int) -> bytes | None:
    """The bytes of one entry; None where there is none of this index."""
    row = session.get(EntryRow, index)
    return None if row is None else row.body


def newest_note(session: Session) -> str:
    """The newest signed checkpoint, as it stands; "" of a log without entries."""
    row = session.scalar(select(CheckpointRow).order_by(CheckpointRow.size.desc()).limit(1))
    return "" if row is None else row.note


def note_at(session: Session, size: int) -> str:
    """The signed checkpoint of the first `size` entries, as it stands; "" where there is none."""
    row = session.get(CheckpointRow, size)
    return "" if row is None else row.note


def changes_at(session: Session, index: int) -> tuple[EntryRecord, tuple[RowChange, ...]] | None:
    """One entry with everything that it changed; None where there is none of this index."""
    row = session.get(EntryRow, index)
    if row is None:
        return None
    entry, _, changes = decode(row.body, patches_of(session, [row.position]).get(row.position, ()))
    return entry, changes


def changes_of(session: Session, kind: str, key: str) -> tuple[tuple[EntryRecord, RowChange], ...]:
    """Every entry that changed a host or a stack, with what it changed of it, the oldest first."""
    query = select(EntryRow).where(EntryRow.outcome.in_(("success", "done"))).order_by(EntryRow.position)
    query = query.where(EntryRow.host == key if kind == "host" else EntryRow.action.startswith(f"{kind}."))
    rows = session.scalars(query).all()
    beside = patches_of(session, [row.position for row in rows])
    read = (decode(row.body, beside.get(row.position, ())) for row in rows)
    return tuple(
        (entry, change) for entry, _, changes in read for change in changes if (change.kind, change.id) == (kind, key)
    )


def find_first(
    session: Session, patches: Sequence[PatchId], actions: Sequence[str]
) -> tuple[tuple[PatchId, EntryRecord], ...]:
    """For each of these patches the first entry of these actions that names it and says success."""
    firsts = session.execute(
        select(EntryPatchRow.patch_id, func.min(EntryRow.position))
        .join(EntryRow, EntryRow.position == EntryPatchRow.position)
        .where(EntryPatchRow.patch_id.in_(patches), EntryRow.action.in_(actions), EntryRow.outcome == "success")
        .group_by(EntryPatchRow.patch_id)
    ).all()
    query = select(EntryRow.position, EntryRow.body).where(EntryRow.position.in_({at for _, at in firsts}))
    entries = {entry.index: entry for entry in _records(session, session.execute(query).all())}
    return tuple((PatchId(patch_id), entries[at]) for patch_id, at in firsts)


def find_unfinished(session: Session, host: str | None = None) -> tuple[EntryRecord, ...]:
    """Entries that began something which no later entry ended, the oldest first."""
    ending = aliased(EntryRow)
    query = (
        select(EntryRow.position, EntryRow.body)
        .outerjoin(ending, ending.closes == EntryRow.position)
        .where(EntryRow.outcome == "begun", ending.position.is_(None))
        .order_by(EntryRow.position)
    )
    if host is not None:
        query = query.where(EntryRow.host == host)
    return tuple(_records(session, session.execute(query).all()))


def _records(session: Session, rows: Sequence[Row[int, bytes]]) -> Iterator[EntryRecord]:
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        patches = patches_of(session, [position for position, _ in batch])
        for position, body in batch:
            yield decode(body, patches.get(position, ()))[0]


def patches_of(session: Session, positions: Sequence[int]) -> dict[int, list[PatchId]]:
    """The patches beside each of these entries, in order."""
    query = select(EntryPatchRow.position, EntryPatchRow.patch_id).where(EntryPatchRow.position.in_(positions))
    found: dict[int, list[PatchId]] = {}
    for position, patch_id in session.execute(query.order_by(EntryPatchRow.ordinal)):
        found.setdefault(position, []).append(PatchId(patch_id))
    return found
