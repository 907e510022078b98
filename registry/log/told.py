"""What the log tells of each row, at hand for every use of a row: an index of record digests under the signed head.

A row is believed only if it has the digest that the last entry about it gives. Walking the log for that at every
command would cost O(n), so the answers are kept in a file beside `last_signed` (`rasura.registry.log.told_file`), which
is asked for what is needed and never read whole.

It is a cache and no authority. It counts as far as it has the root that was signed: the one in `last_signed`, or where
the log went on since, one in a checkpoint whose signature is good. What it lacks is read from the entries, which must
then give that root. Where a row is not as it says, the whole log is read before anybody is told so.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError
from rasura.patches.types import Digest
from rasura.registry._storage.records import EntryRecord
from rasura.registry._storage.tables import CheckpointRow, EntryRow
from rasura.registry.log.entry import RowChange, identify_record
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, Frontier, hash_leaf
from rasura.registry.log.record_digest import Record, fingerprint
from rasura.registry.log.rotation import read_key
from rasura.registry.log.signed_note import Checkpoint, parse_note, verified_by
from rasura.registry.log.told_file import Line, ToldFile

__all__ = [
    "Told",
    "ToldIndex",
    "check_absent",
    "check_actions",
    "check_entries",
    "check_kind",
    "check_newest",
    "check_told",
    "check_unfinished",
]

FILE: Final = "told"
_BATCH: Final = 2000
_HINT: Final = "rasura audit verify"
_INFO: Final = "rasura told"

T = TypeVar("T")


@dataclass(slots=True)
class Told:
    """The tables and the entries as the log up to one head tells of them: the file's first entries, and those since."""

    file: ToldFile
    stored: int = 0
    """How many entries the file answers for; those after them are in `lines`."""
    under: bytes = EMPTY_ROOT
    """The root over the stored ones."""
    lines: list[Line] = field(default_factory=list)
    records: dict[tuple[str, str], Digest | None] = field(default_factory=dict)
    """What changed since the stored ones: kind and identifier to the record's digest, None of one that is gone."""
    pending: dict[tuple[str, str], Digest | None] = field(default_factory=dict)
    """What a transaction that goes on from here has changed, and no entry tells of yet."""
    seen: dict[tuple[str, str], Record] = field(default_factory=dict)
    """Records that were found to have their digest: an equal one is not hashed again."""

    @property
    def size(self) -> int:
        """How many entries it knows."""
        return self.stored + len(self.lines)

    @property
    def root(self) -> bytes:
        """The root over all entries."""
        return self.lines[-1].root if self.lines else self.under

    def root_at(self, size: int) -> bytes | None:
        """The root over the first `size` of them."""
        if size > self.stored:
            return self.lines[size - self.stored - 1].root
        return EMPTY_ROOT if size == 0 else self.file.root_at(size)

    def leaf(self, index: int) -> bytes | None:
        """The leaf hash of an entry; None where there is none."""
        if not 0 <= index < self.size:
            return None
        return self.lines[index - self.stored].leaf if index >= self.stored else self.file.leaf(index)

    def action(self, index: int) -> str:
        """What an entry says was done."""
        return self.lines[index - self.stored].action if index >= self.stored else self.file.action(index)

    def record(self, what: tuple[str, str]) -> Digest | None:
        """The digest that the last entry about a record gives; None where there is none, or it is gone."""
        for newer in (self.pending, self.records):
            if what in newer:
                return newer[what]
        return self.file.record(*what, self.stored) if self.stored else None

    def keys(self, kind: str) -> set[str]:
        """The identifiers of all records of a kind."""
        found = self.file.keys(kind, self.stored) if self.stored else set()
        for (noun, key), record in {**self.records, **self.pending}.items():
            if noun == kind:
                found = found - {key} if record is None else found | {key}
        return found

    def begun(self) -> set[int]:
        """Entries that began something which none has ended."""
        found = self.file.begun(self.stored) if self.stored else set()
        for index, line in enumerate(self.lines, self.stored):
            found |= {index} if line.outcome == "begun" else set()
            found -= {line.closes}
        return found

    def of_action(self, action: str) -> set[int]:
        """The entries of an action."""
        found = self.file.of_action(action, self.stored) if self.stored else set()
        return found | {index for index, line in enumerate(self.lines, self.stored) if line.action == action}

    def newest(self, action: str, outcome: str) -> int | None:
        """The last entry of an action with this outcome."""
        for back, line in enumerate(reversed(self.lines), 1):
            if (line.action, line.outcome) == (action, outcome):
                return self.size - back
        return self.file.newest(action, outcome, self.stored) if self.stored else None

    def fork(self) -> Told:
        """A copy to go on from, while others still read what this one tells of."""
        return Told(self.file, self.stored, self.under, list(self.lines), dict(self.records), {}, dict(self.seen))

    def follow(self, line: Line) -> None:
        """Go on by one entry."""
        for kind, key, record in line.changes:
            self.seen.pop((kind, key), None)
            self.pending.pop((kind, key), None)
            self.records[kind, key] = record
        self.lines.append(line)

    def change(self, changes: Iterable[tuple[str, str, Digest | None]]) -> None:
        """Take over what rows have become in a transaction whose entry is not there yet."""
        for kind, key, record in changes:
            self.seen.pop((kind, key), None)
            self.pending[kind, key] = record

    def settle(self) -> None:
        """All entries are in the file now."""
        self.under, self.stored = self.root, self.size
        self.lines, self.records = [], {}


@dataclass(frozen=True, slots=True)
class _Source:
    """What a session is held to, and how to read it from the log where the file is not to be believed."""

    told: Told
    anew: Callable[[Session], Told]


class ToldIndex:
    """The index of one registry, kept in a file and, of what is not there yet, in memory."""

    def __init__(self, key: LogKey, folder: Path) -> None:
        self._key = key
        self._file = ToldFile(folder / FILE)
        self._told: Told | None = None

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
        source = cast("_Source | None", session.info.get(_INFO))
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

    def grow(self, told: Told, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what a transaction committed: its entries' bytes, each with the root after it."""
        for body, root in entries:
            told.follow(_line(body, hash_leaf(body), root))
        self._told = told

    def store(self, told: Told) -> None:
        """Keep what is not in the file yet; called by whoever holds the right to append.

        Raises:
            RegistryError: the folder cannot be written; nothing depends on it.
        """
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
        session.info[_INFO] = _Source(told, lambda again: self._anew(again, told))

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
        frontier = _frontier(session, size, root) if root is not None else None
        if root is None or frontier is None:
            return None
        return _walk(session, Told(self._file, size, root), frontier, head)

    def _anew(self, session: Session, told: Told) -> Told:
        """The same, from the log alone."""
        found = _walk(session, Told(self._file), Frontier(), Checkpoint(self._key.origin, told.size, told.root))
        found.pending = dict(told.pending)
        return found

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
    source = cast("_Source | None", session.info.get(_INFO))
    if source is None:
        return
    what = identify_record(record)
    if source.told.seen.get(what) == record:
        return
    digest = fingerprint(record)
    found = _ask(session, lambda told: told.record(what), lambda told: told == digest)
    if found is None:
        _broken(f"{what[0]} {what[1][:12]} is in the tables, and no entry of the log tells of it")
    if found != digest:
        _broken(f"{what[0]} {what[1][:12]} is not what the last entry about it tells of")
    source.told.seen[what] = record


def check_kind(session: Session, kind: str, found: Iterable[Record]) -> None:
    """Refuse a list of all rows of a kind that lacks some of which the log tells.

    Raises:
        AuditError: naming one.
    """
    here = {identify_record(record)[1] for record in found}
    missing = _ask(session, lambda told: told.keys(kind) - here, lambda missing: not missing)
    for key in sorted(missing or ()):
        _broken(f"{kind} {key[:12]}, of which the log tells, is not in the tables")


def check_absent(session: Session, kind: str, keys: Collection[str]) -> None:
    """Refuse that a row is gone of which the log tells.

    Raises:
        AuditError: naming it.
    """
    for key in keys:
        what = kind, key
        if _ask(session, lambda told, what=what: told.record(what), lambda found: found is None) is not None:  # type: ignore[misc]
            _broken(f"{kind} {key[:12]}, of which the log tells, is not in the tables")


def check_entries(session: Session, entries: Iterable[EntryRecord]) -> None:
    """Refuse entries whose bytes are not those that were signed.

    Raises:
        AuditError: naming one.
    """
    if session.info.get(_INFO) is None:
        return
    for entry in entries:
        index, leaf = entry.index, entry.leaf_hash
        if _ask(session, lambda told, at=index: told.leaf(at), lambda told, own=leaf: told == own) != leaf:  # type: ignore[misc]
            _broken(f"entry {index} is not the one that was signed")


def check_unfinished(session: Session, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries without an end that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    here = {entry.index for entry in found}
    begun = _ask(session, lambda told: told.begun(), lambda begun: begun == here)
    if begun is not None and (odd := sorted(begun ^ here)):
        _broken(f"entry {odd[0]} {'has no end' if odd[0] in begun else 'has an end'} by the log, and not by its column")


def check_actions(session: Session, action: str, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries of an action that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    here = {entry.index for entry in found}
    expected = _ask(session, lambda told: told.of_action(action), lambda expected: expected == here)
    if expected is not None and (odd := sorted(expected ^ here)):
        _broken(f"entry {odd[0]} is {_action(session, odd[0])} by the log, and not by its column")


def check_newest(session: Session, action: str, found: Sequence[EntryRecord]) -> None:
    """Refuse a newest successful entry of an action that is not the one of the log.

    Raises:
        AuditError: naming the one that should have been found, or was.
    """
    here = [entry.index for entry in found]

    def newest(told: Told) -> list[int]:
        index = told.newest(action, "success")
        return [] if index is None else [index]

    expected = _ask(session, newest, lambda expected: expected == here)
    if expected is not None and (odd := sorted({*expected} ^ {*here})):
        _broken(f"entry {odd[-1]} is {_action(session, odd[-1])} by the log, and not by its column")


def _ask(session: Session, question: Callable[[Told], T], good: Callable[[T], bool]) -> T | None:
    """What the log tells, asked once more of the log itself where the index gives no good answer or none at all.

    None of a session that is not held to it.
    """
    source = cast("_Source | None", session.info.get(_INFO))
    if source is None:
        return None
    try:
        answer = question(source.told)
        if good(answer) or not source.told.stored:
            return answer
    except sqlite3.Error:
        pass
    file, source = source.told.file, _Source(source.anew(session), source.anew)
    session.info[_INFO] = source
    answer = question(source.told)
    if good(answer):  # so the file was wrong
        file.distrusted = True
    return answer


def _action(session: Session, index: int) -> str:
    found = _ask(session, lambda told: told.action(index), lambda _: True)
    assert found is not None
    return found


def _walk(session: Session, told: Told, frontier: Frontier, head: Checkpoint) -> Told:
    """Go on through the entries from the end of a tree up to a head, which they must give."""
    for body in _bodies(session, frontier.size):
        if frontier.size == head.size:
            break
        leaf = hash_leaf(body)
        frontier = frontier.append(leaf)
        told.follow(_line(body, leaf, frontier.root()))
    if (frontier.size, frontier.root()) != (head.size, head.root):
        _broken("the entries are not those that its newest checkpoint signs")
    return told


def _frontier(session: Session, size: int, root: bytes) -> Frontier | None:
    """The tree of that size, if the database has the same; None where its log is another."""
    data = session.scalar(select(CheckpointRow.frontier).where(CheckpointRow.size == size))
    try:
        found = Frontier.from_bytes(size, data or b"")
    except AuditError:
        return None
    return found if found.root() == root else None


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
