"""The tables and the entries as the log up to one head tells of them, and the session that is held to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rasura.patches.types import Digest
from rasura.registry.log.entries.record_digest import Record
from rasura.registry.log.merkle import EMPTY_ROOT
from rasura.registry.log.told.file import Line, ToldFile

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["INFO", "Source", "Told"]

INFO: Final = "rasura told"
"""Where a session keeps what it is held to: a `Source`."""


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
class Source:
    """What a session is held to, and how to read it from the log where the file is not to be believed."""

    told: Told
    anew: Callable[[Session], Told]
