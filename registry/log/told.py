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

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.errors import AuditError, RasuraError
from rasura.patches.types import Digest
from rasura.registry._storage.durable_files import read_regular, translated, write_atomic
from rasura.registry._storage.records import EntryRecord
from rasura.registry._storage.tables import CheckpointRow, EntryRow
from rasura.registry.log.entry import RowChange, identify_record
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, Frontier, hash_leaf
from rasura.registry.log.record_digest import Record, fingerprint
from rasura.registry.log.rotation import read_key
from rasura.registry.log.signed_note import Checkpoint, parse_note, verified_by

__all__ = [
    "Told",
    "ToldIndex",
    "check_absent",
    "check_actions",
    "check_entries",
    "check_kind",
    "check_told",
    "check_unfinished",
]

FILE: Final = "told"
_HEADER: Final = "rasura told v1"
_LIMIT: Final = 4 * 1024**3
_BATCH: Final = 2000
_PRIVATE: Final = 0o600
_HINT: Final = "rasura audit verify"
_INFO: Final = "rasura told"


@dataclass(frozen=True, slots=True)
class Line:
    """One entry: its leaf, the root after it, and what of it decisions rest on."""

    leaf: bytes
    root: bytes
    action: str
    outcome: str
    closes: int | None
    changes: tuple[tuple[str, str, Digest | None], ...]

    def __str__(self) -> str:
        said: JsonValue = [self.action, self.outcome, self.closes, [list(change) for change in self.changes]]
        return f"{self.leaf.hex()} {self.root.hex()} {canonical_json.dumps(said).decode()}"

    @classmethod
    def parse(cls, text: str) -> Line:
        """Read a line.

        Raises:
            ValueError, TypeError: it is none.
        """
        leaf, root, said = text.split(" ", 2)
        action, outcome, closes, changes = json.loads(said)
        return cls(bytes.fromhex(leaf), bytes.fromhex(root), action, outcome, closes, tuple(map(_change, changes)))


@dataclass(slots=True)
class Told:
    """The tables and the entries as the log up to one head tells of them."""

    lines: list[Line] = field(default_factory=list)
    records: dict[tuple[str, str], Digest] = field(default_factory=dict)
    """Kind and identifier to the record's digest; those that were removed are not here."""
    open: set[int] = field(default_factory=set)
    """Entries that began something which none has ended."""
    seen: dict[tuple[str, str], Record] = field(default_factory=dict)
    """Records that were found to have their digest: an equal one is not hashed again."""

    @property
    def root(self) -> bytes:
        """The root over all entries."""
        return self.lines[-1].root if self.lines else EMPTY_ROOT

    def fork(self) -> Told:
        """A copy to go on from, while others still read what this one tells of."""
        return Told(list(self.lines), dict(self.records), set(self.open), dict(self.seen))

    def follow(self, line: Line) -> None:
        """Go on by one entry."""
        self.change(line.changes)
        if line.closes is not None:
            self.open.discard(line.closes)
        if line.outcome == "begun":
            self.open.add(len(self.lines))
        self.lines.append(line)

    def change(self, changes: Iterable[tuple[str, str, Digest | None]]) -> None:
        """Take over what rows have become."""
        for kind, key, record in changes:
            self.seen.pop((kind, key), None)
            if record is None:
                self.records.pop((kind, key), None)
            else:
                self.records[kind, key] = record


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
        session.info[_INFO] = self._told
        return self._told

    def changed(self, session: Session, changes: Sequence[RowChange]) -> None:
        """Rows that the session's own transaction changed: later readings in it expect them so."""
        told = cast("Told | None", session.info.get(_INFO))
        if told is not None:
            told.change((change.kind, change.id, change.record) for change in changes)

    def fork(self, session: Session, memory: LastSigned) -> Told:
        """As `attach`, for a transaction that goes on from there, and may be rolled back.

        Raises:
            AuditError: see `attach`.
        """
        told = self.attach(session, memory).fork()
        session.info[_INFO] = told
        return told

    def grow(self, told: Told, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what a transaction committed: its entries' bytes, each with the root after it."""
        for body, root in entries:
            told.follow(_line(body, hash_leaf(body), root))
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
            _broken(f"checkpoint {row.size} is not the tree's")
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
            told.follow(_line(body, leaf, frontier.root()))
        if (frontier.size, frontier.root()) != (head.size, head.root):
            _broken("the entries are not those that its newest checkpoint signs")
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


def check_told(session: Session, record: Record) -> None:
    """Refuse a row that is not the one which the last entry about it tells of.

    Sessions that look at tables as they are, as an audit does, are not held to it.

    Raises:
        AuditError: it was changed or added behind the log's back.
    """
    told = cast("Told | None", session.info.get(_INFO))
    if told is None:
        return
    what = identify_record(record)
    if what in told.seen and told.seen[what] == record and what in told.records:
        return
    if told.records.get(what) is None:
        _broken(f"{what[0]} {what[1][:12]} is in the tables, and no entry of the log tells of it")
    if told.records[what] != fingerprint(record):
        _broken(f"{what[0]} {what[1][:12]} is not what the last entry about it tells of")
    told.seen[what] = record


def check_kind(session: Session, kind: str, found: Iterable[Record]) -> None:
    """Refuse a list of all rows of a kind that lacks some of which the log tells.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(_INFO))
    if told is not None:
        here = {identify_record(record)[1] for record in found}
        check_absent(session, kind, [key for noun, key in told.records if noun == kind and key not in here])


def check_absent(session: Session, kind: str, keys: Collection[str]) -> None:
    """Refuse that a row is gone of which the log tells.

    Raises:
        AuditError: naming it.
    """
    told = cast("Told | None", session.info.get(_INFO))
    for key in keys:
        if told is not None and (kind, key) in told.records:
            _broken(f"{kind} {key[:12]}, of which the log tells, is not in the tables")


def check_entries(session: Session, entries: Iterable[EntryRecord]) -> None:
    """Refuse entries whose bytes are not those that were signed.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(_INFO))
    for entry in entries:
        if told is not None and not (
            0 <= entry.index < len(told.lines) and told.lines[entry.index].leaf == entry.leaf_hash
        ):
            _broken(f"entry {entry.index} is not the one that was signed")


def check_unfinished(session: Session, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries without an end that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(_INFO))
    if told is not None and (odd := sorted(told.open ^ {entry.index for entry in found})):
        _broken(
            f"entry {odd[0]} {'has no end' if odd[0] in told.open else 'has an end'} by the log, and not by its column"
        )


def check_actions(session: Session, action: str, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries of an action that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(_INFO))
    if told is not None:
        expected = {at for at, line in enumerate(told.lines) if line.action == action}
        if odd := sorted(expected ^ {entry.index for entry in found}):
            _broken(f"entry {odd[0]} is {told.lines[odd[0]].action} by the log, and not by its column")


def _line(body: bytes, leaf: bytes, root: bytes) -> Line:
    """What of an entry's bytes decisions rest on; that they were signed is found out by the caller."""
    try:
        said = json.loads(body)
        changes = tuple(_change((c["kind"], c["id"], c.get("record"))) for c in said.get("changes", ()))
        return Line(leaf, root, said["type"], said["outcome"]["status"], said.get("closes"), changes)
    except (ValueError, TypeError, KeyError, AttributeError):
        _broken("an entry is no JSON of this format")


def _change(said: Sequence[str | None]) -> tuple[str, str, Digest | None]:
    kind, key, record = said
    if not isinstance(kind, str) or not isinstance(key, str):
        raise TypeError
    return kind, key, None if record is None else Digest(record)


def _bodies(session: Session, start: int) -> Iterable[bytes]:
    while True:
        query = select(EntryRow.position, EntryRow.body).where(EntryRow.position >= start).order_by(EntryRow.position)
        rows = session.execute(query.limit(_BATCH)).all()
        for row in rows:
            if row.position != start:
                _broken(f"expected entry {start}, got {row.position}")
            yield row.body
            start += 1
        if len(rows) < _BATCH:
            return


def _cut(memory: LastSigned | None, head: Checkpoint) -> NoReturn:
    assert memory is not None
    same = memory.committed.size == head.size
    _broken(
        f"expected {memory.committed.size} entries as last signed, got {head.size}{' others' if same else ''}: it was "
        "cut, or an old copy was restored",
        check="cut",
    )


def _broken(message: str, check: str = "tables") -> NoReturn:
    raise AuditError(f"audit log: {message}", hint=_HINT, check=check)
