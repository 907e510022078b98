"""What the log tells of each row, at hand for every use of a row: an index of record digests under the signed head.

A row is believed only if it has the digest that the last entry about it gives. Walking the log for that at every
command would cost O(n), so the answer is kept in `.rasura/keys/told`, beside `last_signed` and out of reach of whoever
can write only the database. The file has a line for each entry:

    <leaf hash, hex> <root after it, hex> <canonical JSON: action, outcome, closes, [[kind, id, record or null], …]>

It is a cache and no authority. What it lacks is read from the entries, which must then give the root that was signed:
the one in `last_signed`, or where the log went on since, one in a checkpoint whose signature is good. Lines that do not
parse, or do not belong to the log, are thrown away, and the whole log is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError, RasuraError
from rasura.registry._storage.durable_files import read_regular, translated, write_atomic
from rasura.registry._storage.tables import CheckpointRow, EntryRow
from rasura.registry.log.entry import RowChange
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, Frontier, hash_leaf
from rasura.registry.log.rotation import read_key
from rasura.registry.log.signed_note import Checkpoint, parse_note, verified_by
from rasura.registry.log.told.lines import INFO, Line, Told, read_line, refuse

__all__ = ["ToldIndex"]

FILE: Final = "told"
_HEADER: Final = "rasura told v1"
_LIMIT: Final = 4 * 1024**3
_BATCH: Final = 2000
_PRIVATE: Final = 0o600


class ToldIndex:
    """The index of one registry, kept in a file and in memory."""

    def __init__(self, key: LogKey, folder: Path) -> None:
        self._key = key
        self._path = folder / FILE
        self._told: Told | None = None
        self._stored = 0
        """Lines of the file that were read or written, and the bytes that it had then."""
        self._bytes = 0

    def attach(self, session: Session, memory: LastSigned | None) -> Told:
        """Have every row that a session reads compared with what the log tells of it.

        Args:
            session: a snapshot that began after `memory` was read.
            memory: what was signed last; None of a copy without keys.

        Raises:
            AuditError: the entries of the database are not those that were signed.
        """
        head = self._head(session)
        if self._told is None or len(self._told.lines) != head.size or self._told.root != head.root:
            self._told = self._caught_up(session, head, memory)
        elif memory is not None and head.size < memory.committed.size:
            _cut(memory, head)
        session.info[INFO] = self._told
        return self._told

    def changed(self, session: Session, changes: Sequence[RowChange]) -> None:
        """Rows that the session's own transaction changed: later readings in it expect them so."""
        told = cast("Told | None", session.info.get(INFO))
        if told is not None:
            told.change((change.kind, change.id, change.record) for change in changes)

    def fork(self, session: Session, memory: LastSigned) -> Told:
        """As `attach`, for a transaction that goes on from there, and may be rolled back.

        Raises:
            AuditError: see `attach`.
        """
        told = self.attach(session, memory).fork()
        session.info[INFO] = told
        return told

    def grow(self, told: Told, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what a transaction committed: its entries' bytes, each with the root after it."""
        for body, root in entries:
            told.follow(read_line(body, hash_leaf(body), root))
        self._told = told

    def store(self, told: Told) -> None:
        """Keep what was caught up in the file; called by whoever holds the right to append.

        Raises:
            RegistryError: it cannot be written; nothing depends on it.
        """
        if len(told.lines) <= self._stored:
            return
        text = "".join(f"{line}\n" for line in told.lines[self._stored :])
        if self._stored and self._path.is_file() and self._path.stat().st_size == self._bytes:
            with translated(f"write {self._path}"), self._path.open("ab") as file:
                file.write(text.encode())  # not made durable: a torn line is thrown away, and read from the log again
            self._bytes += len(text.encode())
        else:
            whole = "".join(f"{line}\n" for line in (_HEADER, *told.lines)).encode()
            write_atomic(self._path, whole, mode=_PRIVATE)
            self._bytes = len(whole)
        self._stored = len(told.lines)

    def _head(self, session: Session) -> Checkpoint:
        row = session.execute(
            select(CheckpointRow.size, CheckpointRow.note).order_by(CheckpointRow.size.desc()).limit(1)
        ).first()
        if row is None:
            return Checkpoint(self._key.origin, 0, EMPTY_ROOT)
        found = Checkpoint.parse(parse_note(row.note.encode()).text)
        if (found.origin, found.size) != (self._key.origin, row.size):
            refuse(f"checkpoint {row.size} is not the tree's")
        return found

    def _caught_up(self, session: Session, head: Checkpoint, memory: LastSigned | None) -> Told:
        if memory is not None and head.size < memory.committed.size:
            _cut(memory, head)
        trusted = memory.committed if memory is not None else None
        if trusted is None or head.size > trusted.size:
            if memory is None or memory.intended != head:
                self._check_signed(session, head)
        elif head != trusted:
            _cut(memory, head)
        told = self._loaded(head.size)
        frontier = self._frontier(session, told)
        if frontier is None:
            told, frontier = Told(), Frontier()
        for body in _bodies(session, frontier.size):
            leaf = hash_leaf(body)
            frontier = frontier.append(leaf)
            told.follow(read_line(body, leaf, frontier.root()))
        if (frontier.size, frontier.root()) != (head.size, head.root):
            refuse("the entries are not those that its newest checkpoint signs")
        if trusted is not None and trusted.size > 0 and told.lines[trusted.size - 1].root != trusted.root:
            _cut(memory, head)
        return told

    def _loaded(self, size: int) -> Told:
        """What the file has of the first `size` entries."""
        told, self._stored = Told(), 0
        try:
            data = read_regular(self._path, limit=_LIMIT, what="index of the audit log")
            header, *lines = data.decode().split("\n")
            if header != _HEADER or lines.pop() != "":  # a torn last line
                return told
            for text in lines[:size]:
                told.follow(Line.parse(text))
        except (RasuraError, ValueError, TypeError):
            return Told()
        self._stored, self._bytes = len(lines), len(data)
        return told

    def _frontier(self, session: Session, told: Told) -> Frontier | None:
        """The tree under what was loaded; None where the log in the database is another."""
        size = len(told.lines)
        if size == 0:
            return Frontier()
        data = session.scalar(select(CheckpointRow.frontier).where(CheckpointRow.size == size))
        try:
            found = Frontier.from_bytes(size, data or b"")
        except AuditError:
            return None
        return found if found.root() == told.root else None

    def _check_signed(self, session: Session, head: Checkpoint) -> None:
        """The newest checkpoint is signed by the log's key."""
        key = self._key.public_here() or read_key(session)
        note = session.scalar(select(CheckpointRow.note).where(CheckpointRow.size == head.size)) or ""
        verified_by(parse_note(note.encode()), [key])


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
