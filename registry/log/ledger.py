"""Rows of the audit log: appending under the signing key, and listing."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import Session, aliased

from rasura.patches.errors import AuditError, NotFoundError
from rasura.patches.types import PatchId
from rasura.registry._storage.database.tables import CheckpointRow, EntryPatchRow, EntryRow
from rasura.registry._storage.records.records import Draft, EntryRecord, Outcome
from rasura.registry.log.entries.entry import Placement, RowChange, decode, encode
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, Frontier, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note
from rasura.registry.log.rotation import read_key

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import SigningKey

__all__ = [
    "Appended",
    "EntryFilter",
    "Telling",
    "append",
    "changes_of",
    "every",
    "find_first",
    "find_unfinished",
    "newest_note",
    "note_at",
    "read_stored",
    "root_at",
    "settle",
    "tree",
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


@dataclass(frozen=True, slots=True)
class Telling:
    """An entry before it has its place: what it says, what changed, and when."""

    draft: Draft
    changes: Sequence[RowChange]
    time: datetime


@dataclass(frozen=True, slots=True)
class Appended:
    """What a transaction adds to the log.

    Attributes:
        entries: as they will be read.
        signed: the checkpoint after the last of them.
        grown: the bytes of each, and the root after it.
    """

    entries: tuple[EntryRecord, ...]
    signed: Checkpoint
    grown: tuple[tuple[bytes, bytes], ...]


def tree(session: Session, origin: str) -> tuple[Checkpoint, Frontier]:
    """The newest checkpoint of the database and the tree under it; the signature is not looked at.

    Raises:
        AuditError: the two do not belong together.
    """
    row = session.scalar(select(CheckpointRow).order_by(CheckpointRow.size.desc()).limit(1))
    return (Checkpoint(origin, 0, EMPTY_ROOT), Frontier()) if row is None else _parsed(row, origin)


def root_at(session: Session, origin: str, size: int) -> bytes | None:
    """The root over the first `size` entries, None where there never were so many.

    Raises:
        AuditError: that checkpoint and the tree under it do not belong together.
    """
    row = session.get(CheckpointRow, size)
    return None if row is None else _parsed(row, origin)[0].root


def _parsed(row: CheckpointRow, origin: str) -> tuple[Checkpoint, Frontier]:
    checkpoint = Checkpoint.parse(parse_note(row.note.encode()).text)
    frontier = Frontier.from_bytes(row.size, row.frontier)
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (origin, row.size, frontier.root()):
        raise AuditError(f"audit log: checkpoint {row.size} is not the tree's", hint="rasura audit verify")
    return checkpoint, frontier


def settle(session: Session, key: LogKey) -> VerifyKey:
    """The key that the log is signed with now; a rotation that a crash kept from its end is ended.

    Where the newest checkpoint names the key that is here and no other, that is it: no entry need be searched for.

    Raises:
        AuditError: the registry names no key.
    """
    mine = key.verify_key
    newest = session.scalar(select(CheckpointRow.note).order_by(CheckpointRow.size.desc()).limit(1))
    if newest is not None and [s.key_id for s in parse_note(newest.encode()).signatures] == [mine.key_id]:
        return mine
    named = read_key(session)
    key.settle(named)
    return named


def append(
    session: Session,
    key: LogKey,
    tellings: Sequence[Telling],
    *,
    renewed: VerifyKey | None = None,
    actor: "SigningKey | None" = None,
) -> Appended:
    """Adds entries to the transaction, each with its signed checkpoint.

    Args:
        session: the transaction.
        key: which signs.
        tellings: the entries.
        renewed: the key that signs beside it, and from then on in its place.
        actor: the key of who acts, which signs what each entry says.

    Raises:
        AuditError: the key is not this log's, or the database was cut or exchanged.
        NotFoundError: an entry closes one that is not open.
        InputError: a draft cannot be an entry.
    """
    # 1. The key must be the registry's own: what another signed would verify for nobody, and stay in the log for ever.
    named, mine = settle(session, key), key.verify_key
    if named != mine:
        raise AuditError(
            f"audit log: expected to sign with {named}, got {mine}; nothing was written",
            hint="restore keys/log.pem from a backup",
            check="key",
        )
    # 2. The tree in the database must be the one that this key signed last.
    present, frontier = tree(session, key.origin)
    memory = key.recall()
    if not memory.explains(present):
        raise AuditError(
            f"audit log: expected {memory.committed.size} entries as last signed, got {present.size}"
            f"{'' if present.size != memory.committed.size else ' others'}: it was cut, or an old copy was restored",
            hint="rasura audit verify",
        )
    # 3. The entries, each in its place.
    entries: list[EntryRecord] = []
    bodies: list[bytes] = []
    trees: list[tuple[Checkpoint, Frontier]] = []
    for telling in tellings:
        draft = _closing(session, telling.draft)
        place = Placement(key.origin, frontier.size, str(uuid.uuid4()), telling.time)
        body = encode(draft, place, telling.changes, actor)
        frontier = frontier.append(hash_leaf(body))
        trees.append((Checkpoint(key.origin, frontier.size, frontier.root()), frontier))
        _insert(session, draft, place, body)
        bodies.append(body)
        entries.append(decode(body, draft.patches)[0])
    # 4. The intention is on disk before a signature can be: the same size is never signed with two roots. It names the
    #    last tree only, because the transaction shows all of them or none.
    signed = trees[-1][0] if trees else present
    key.remember(LastSigned(present, signed))
    for checkpoint, grown in trees:
        session.add(
            CheckpointRow(
                size=grown.size, note=key.sign(checkpoint, renewed=renewed is not None), frontier=grown.to_bytes()
            )
        )
    session.flush()
    roots = (checkpoint.root for checkpoint, _ in trees)
    return Appended(tuple(entries), signed, tuple(zip(bodies, roots, strict=True)))


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


def _closing(session: Session, draft: Draft) -> Draft:
    """The draft with the entry that it ends: the named one, or for a `done` the latest that its host began."""
    if draft.closes is not None:
        begun = session.get(EntryRow, draft.closes)
        ended = session.scalar(select(EntryRow.position).where(EntryRow.closes == draft.closes))
        if begun is None or begun.outcome != "begun" or ended is not None:
            raise NotFoundError(f"audit entry: expected {draft.closes} begun and not ended", hint="rasura audit log")
        return draft
    if draft.outcome != "done" or draft.host is None:
        return draft
    unfinished = find_unfinished(session, draft.host)
    return replace(draft, closes=unfinished[-1].index) if unfinished else draft


def _insert(session: Session, draft: Draft, place: Placement, body: bytes) -> None:
    session.add(
        EntryRow(
            position=place.index,
            leaf_hash=hash_leaf(body),
            body=body,
            time=place.time,
            action=draft.action,
            outcome=draft.outcome,
            host=draft.host,
            closes=draft.closes,
        )
    )
    session.flush()  # the patches refer to it
    session.add_all(
        EntryPatchRow(position=place.index, ordinal=at, patch_id=patch_id) for at, patch_id in enumerate(draft.patches)
    )
