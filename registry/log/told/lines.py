"""What entries tell of rows, an entry a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from rasura.patches._io import canonical_json
from rasura.patches.errors import AuditError
from rasura.patches.types import Digest
from rasura.registry.log.merkle import EMPTY_ROOT
from rasura.registry.log.record_digest import Record

if TYPE_CHECKING:
    from rasura.patches._io.json_fields import JsonValue

__all__ = ["INFO", "Line", "Told", "read_change", "read_line", "refuse"]

_HINT: Final = "rasura audit verify"
INFO: Final = "rasura told"


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
        return cls(bytes.fromhex(leaf), bytes.fromhex(root), action, outcome, closes, tuple(map(read_change, changes)))


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


def read_line(body: bytes, leaf: bytes, root: bytes) -> Line:
    """What of an entry's bytes decisions rest on; that they were signed is found out by the caller."""
    try:
        said = json.loads(body)
        changes = tuple(read_change((c["kind"], c["id"], c.get("record"))) for c in said.get("changes", ()))
        return Line(leaf, root, said["type"], said["outcome"]["status"], said.get("closes"), changes)
    except (ValueError, TypeError, KeyError, AttributeError):
        refuse("an entry is no JSON of this format")


def read_change(said: Sequence[str | None]) -> tuple[str, str, Digest | None]:
    """Kind and identifier of a row, and the digest of its record; None: it was removed.

    Raises:
        TypeError, ValueError: it is no change.
    """
    kind, key, record = said
    if not isinstance(kind, str) or not isinstance(key, str):
        raise TypeError
    return kind, key, None if record is None else Digest(record)


def refuse(message: str, check: str = "tables") -> NoReturn:
    """Say that tables and log are not of one another.

    Raises:
        AuditError: always.
    """
    raise AuditError(f"audit log: {message}", hint=_HINT, check=check)
