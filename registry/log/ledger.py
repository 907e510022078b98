"""Rows of the audit log: appending under the signing key."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError, NotFoundError
from rasura.registry._storage.database.tables import CheckpointRow, EntryPatchRow, EntryRow
from rasura.registry._storage.records.records import Draft, EntryRecord
from rasura.registry.log.entries.entry import Placement, RowChange, decode, encode
from rasura.registry.log.entries.stored_entries import find_unfinished
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, Frontier
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note
from rasura.registry.log.rotation import read_key
from rasura.registry.log.told.file import Line

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import SigningKey

__all__ = ["Appended", "Telling", "append", "root_at", "settle", "tree"]


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
        lines: what decisions rest on, of each.
    """

    entries: tuple[EntryRecord, ...]
    signed: Checkpoint
    lines: tuple[Line, ...]


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
    placed: list[_Placed] = []
    for telling in tellings:
        placed.append(_place(session, key.origin, frontier, telling, actor))
        frontier = placed[-1].frontier
    # 4. The intention is on disk before a signature can be: the same size is never signed with two roots. It names the
    #    last tree only, because the transaction shows all of them or none.
    signed = placed[-1].checkpoint if placed else present
    key.remember(LastSigned(present, signed))
    for each in placed:
        note = key.sign(each.checkpoint, renewed=renewed is not None)
        session.add(CheckpointRow(size=each.checkpoint.size, note=note, frontier=each.frontier.to_bytes()))
    session.flush()
    return Appended(tuple(each.entry for each in placed), signed, tuple(each.line for each in placed))


@dataclass(frozen=True, slots=True)
class _Placed:
    """An entry that has its place, and the tree that ends with it; not signed yet."""

    entry: EntryRecord
    line: Line
    frontier: Frontier
    checkpoint: Checkpoint


def _place(session: Session, origin: str, frontier: Frontier, telling: Telling, actor: "SigningKey | None") -> _Placed:
    """Adds the entry behind those of `frontier` to the tables."""
    draft = _closing(session, telling.draft)
    place = Placement(origin, frontier.size, str(uuid.uuid4()), telling.time)
    body = encode(draft, place, telling.changes, actor)
    entry = decode(body, draft.patches)[0]
    grown = frontier.append(entry.leaf_hash)
    checkpoint = Checkpoint(origin, grown.size, grown.root())
    session.add(
        EntryRow(
            position=entry.index,
            leaf_hash=entry.leaf_hash,
            body=body,
            time=entry.time,
            action=draft.action,
            outcome=draft.outcome,
            host=draft.host,
            closes=draft.closes,
        )
    )
    session.flush()  # the patches refer to it
    listed = (EntryPatchRow(position=entry.index, ordinal=n, patch_id=named) for n, named in enumerate(draft.patches))
    session.add_all(listed)
    changes = tuple((change.kind, change.id, change.record) for change in telling.changes)
    line = Line(entry.leaf_hash, checkpoint.root, draft.action, draft.outcome, draft.closes, changes)
    return _Placed(entry, line, grown, checkpoint)


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
