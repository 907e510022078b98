"""What the log tells of each row, at hand for every use of a row: an index of record digests under the signed head.

A row is believed only if it has the digest that the last entry about it gives. Walking the log for that at every
command would cost O(n), so the answers are kept in a file beside `last_signed` (`rasura.registry.log.told.file`), which
is asked for what is needed and never read whole.

It is a cache and no authority. It counts as far as it has the root that was signed: the one in `last_signed`, or where
the log went on since, one in a checkpoint whose signature is good. What it lacks is read from the entries, which must
then give that root. Where a row is not as it says, the whole log is read before anybody is told so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, cast

from sqlalchemy import select

from rasura.patches.errors import AuditError
from rasura.registry._storage.database.tables import CheckpointRow, EntryRow
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.log_key import LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, Frontier, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, parse_note, verify_note
from rasura.registry.log.rotation import read_key
from rasura.registry.log.told.file import Line, ToldFile
from rasura.registry.log.told.lines import read_line, refuse
from rasura.registry.log.told.told import INFO, Source, Told

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rasura.registry.log.log_key import LastSigned

__all__ = ["ToldIndex"]

FILE: Final = "told"
_BATCH: Final = 2000
_NEWEST: Final = "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1"


class ToldIndex:
    """The index of one registry, kept in a file and, of what is not there yet, in memory."""

    def __init__(self, key: LogKey, folder: Path) -> None:
        self._key = key
        self._file = ToldFile(folder / FILE)
        self._told: Told | None = None
        self._newest: tuple[int, str, Checkpoint] | None = None
        """The newest checkpoint that was read: its row, and what that says."""

    def attach(self, session: Session, memory: LastSigned | None) -> Told:
        """Have every row that a session reads compared with what the log tells of it.

        Args:
            session: a snapshot that began after `memory` was read.
            memory: what was signed last; None of a copy without keys.

        Raises:
            AuditError: the entries of the database are not those that were signed.
        """
        head = self._head(session)
        if self._file.distrusted and self._told is not None and self._told.stored:
            self._told = None
        if self._told is None or self._told.size != head.size or self._told.root != head.root:
            self._told = self._caught_up(session, head, memory)
        elif memory is not None and head.size < memory.committed.size:
            _cut(memory, head)
        self._give(session, self._told)
        return self._told

    def changed(self, session: Session, changes: Sequence[RowChange]) -> None:
        """Rows that the session's own transaction changed: later readings in it expect them so."""
        source = cast("Source | None", session.info.get(INFO))
        if source is not None:
            source.told.change((change.kind, change.id, change.record) for change in changes)

    def fork(self, session: Session, memory: LastSigned) -> Told:
        """As `attach`, for a transaction that goes on from there, and may be rolled back.

        Raises:
            AuditError: see `attach`.
        """
        told = self.attach(session, memory).fork()
        self._give(session, told)
        return told

    def grow(self, told: Told, lines: Iterable[Line]) -> None:
        """Take over the entries that a transaction committed, and keep them in the file.

        Called by whoever holds the right to append.

        Raises:
            RegistryError: the folder cannot be written; nothing depends on it.
        """
        for line in lines:
            told.follow(line)
        self._told = told
        try:
            kept = self._file.size() >= told.stored
            if kept:
                self._file.extend(told.stored, told.lines)
        except sqlite3.Error:
            kept = False
        if kept:
            told.settle()
        else:  # lost while it was in use: the next reading finds out what is left of it
            self._file.close()
            self._told = None

    def close(self) -> None:
        """Give the file up."""
        self._file.close()

    def _give(self, session: Session, told: Told) -> None:
        session.info[INFO] = Source(told, lambda again: self._anew(again, told))

    def _head(self, session: Session) -> Checkpoint:
        # Asked before every reading: as SQL that was composed once, and parsed again only if it says something new.
        row = session.connection().exec_driver_sql(_NEWEST).first()
        if row is None:
            return Checkpoint(self._key.origin, 0, EMPTY_ROOT)
        size, note = row
        if self._newest is None or self._newest[:2] != (size, note):
            found = Checkpoint.parse(parse_note(note.encode()).text)
            if (found.origin, found.size) != (self._key.origin, size):
                refuse(f"checkpoint {size} is not the tree's")
            self._newest = size, note, found
        return self._newest[2]

    def _caught_up(self, session: Session, head: Checkpoint, memory: LastSigned | None) -> Told:
        if memory is not None and head.size < memory.committed.size:
            _cut(memory, head)
        trusted = memory.committed if memory is not None else None
        if trusted is None or head.size > trusted.size:
            if memory is None or memory.intended != head:
                self._check_signed(session, head)
        elif head != trusted:
            _cut(memory, head)
        try:
            told = self._from_file(session, head)
            known = told is not None and (trusted is None or told.root_at(trusted.size) == trusted.root)
        except sqlite3.Error:
            told, known = None, False
        if told is None or not known:
            told = _walk(session, Told(self._file), Frontier(), head)
        if trusted is not None and told.root_at(trusted.size) != trusted.root:
            _cut(memory, head)
        return told

    def _from_file(self, session: Session, head: Checkpoint) -> Told | None:
        """What the file has of the log, and the entries after that; None where it has nothing of this log."""
        size = min(self._file.size(), head.size)
        root = self._file.root_at(size) if size else None
        if root is None:
            return None
        data = session.scalar(select(CheckpointRow.frontier).where(CheckpointRow.size == size))
        try:
            frontier = Frontier.from_bytes(size, data or b"")
        except AuditError:
            return None
        return _walk(session, Told(self._file, size, root), frontier, head) if frontier.root() == root else None

    def _anew(self, session: Session, told: Told) -> Told:
        """The same, from the log alone."""
        found = _walk(session, Told(self._file), Frontier(), Checkpoint(self._key.origin, told.size, told.root))
        found.pending = dict(told.pending)
        return found

    def _check_signed(self, session: Session, head: Checkpoint) -> None:
        """The newest checkpoint is signed by the log's key."""
        key = self._key.public_here() or read_key(session)
        note = session.scalar(select(CheckpointRow.note).where(CheckpointRow.size == head.size)) or ""
        verify_note(parse_note(note.encode()), [key])


def _walk(session: Session, told: Told, frontier: Frontier, head: Checkpoint) -> Told:
    """Go on through the entries from the end of a tree up to a head, which they must give."""
    for body in _bodies(session, frontier.size):
        if frontier.size == head.size:
            break
        leaf = hash_leaf(body)
        frontier = frontier.append(leaf)
        told.follow(read_line(body, leaf, frontier.root()))
    if (frontier.size, frontier.root()) != (head.size, head.root):
        refuse("the entries are not those that its newest checkpoint signs")
    return told


def _bodies(session: Session, start: int) -> Iterable[bytes]:
    while True:
        query = select(EntryRow.position, EntryRow.body).where(EntryRow.position >= start).order_by(EntryRow.position)
        rows = session.execute(query.limit(_BATCH)).all()
        for row in rows:
            if row.position != start:
                refuse(f"expected entry {start}, got {row.position}")
            yield row.body
            start += 1
        if len(rows) < _BATCH:
            return


def _cut(memory: LastSigned | None, head: Checkpoint) -> NoReturn:
    assert memory is not None
    same = memory.committed.size == head.size
    refuse(
        f"expected {memory.committed.size} entries as last signed, got {head.size}{' others' if same else ''}: it was "
        "cut, or an old copy was restored",
        check="cut",
    )
