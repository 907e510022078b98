"""The clock of a case: until when something must be done, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from rasura.patches.algebra.strength import SIXTEENTHS
from rasura.patches.errors import InputError
from rasura.registry.evidence.proofs.choose_entries import EntryChoice, choose_entries, parse_moment

if TYPE_CHECKING:
    from rasura.registry._storage.records.case_record import CaseRecord
    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.registry import Registry

__all__ = ["CaseStanding", "list_standings", "parse_deadline", "parse_received", "read_standing"]

_SPAN: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FAR: Final = 100_000
_MOTIONS: Final = ("patch.apply", "patch.switch", "stack.set", "stack.add")
"""What brings an erasure into force: a model is moved, or the stack that models follow."""


@dataclass(frozen=True, slots=True)
class CaseStanding:
    """How a case stands at one moment.

    Attributes:
        record: the case.
        entries: what belongs to it, the oldest first.
        acted: the first entry with which something came into force; None: nothing has.
        at: the moment.
    """

    record: CaseRecord
    entries: tuple[EntryRecord, ...]
    acted: EntryRecord | None
    at: datetime

    @property
    def state(self) -> Literal["open", "closed", "forgotten"]:
        """Whether it is open, closed, or closed and without its personal data."""
        if self.record.forgotten_at is not None:
            return "forgotten"
        return "open" if self.record.closed_at is None else "closed"

    @property
    def took(self) -> timedelta | None:
        """From when it was received to when something came into force; None: nothing has."""
        return None if self.acted is None else self.acted.time - self.record.received_at

    @property
    def left(self) -> timedelta | None:
        """Time to the deadline: when something came into force, else now; less than nothing is late. None: no limit."""
        if self.record.due_at is None:
            return None
        stopped = self.acted.time if self.acted is not None else self.record.closed_at or self.at
        return self.record.due_at - stopped

    @property
    def late(self) -> bool:
        """Whether the deadline passed before anything came into force."""
        return self.left is not None and self.left < timedelta(0)


def read_standing(registry: Registry, case_id: str) -> CaseStanding:
    """How a case stands now.

    Raises:
        NotFoundError: there is no such case.
    """
    record = registry.case(case_id)
    entries = tuple(choose_entries(registry, EntryChoice(case=case_id), newest=False))
    moved = (e for e in entries if e.action in _MOTIONS and e.outcome in {"success", "done"})
    acted = next((e for e in moved if _suppresses(registry, e)), None)
    return CaseStanding(record, entries, acted, registry.now())


def _suppresses(registry: Registry, entry: EntryRecord) -> bool:
    """Whether a motion brought something to strength 1; one that only put changes in at others suppresses nothing."""
    sets = [change.applied for change in registry.changes_at(entry.index) if change.applied is not None]
    put = [sixteenths for applied in sets for sixteenths in applied.values() if sixteenths]
    return not put or SIXTEENTHS in put


def list_standings(registry: Registry, *, closed: bool = True) -> tuple[CaseStanding, ...]:
    """How every case stands, those that are due first in front; or only the open ones."""
    records = [record for record in registry.cases() if closed or record.closed_at is None]
    found = [read_standing(registry, record.case_id) for record in records]
    return tuple(sorted(found, key=lambda each: (each.record.closed_at is not None, _due(each))))


def parse_received(text: str, now: datetime) -> datetime:
    """When a request came, which is not later than now.

    Raises:
        InputError: no time, or one that is yet to come.
    """
    found = parse_moment(text, now)
    if found > now:
        raise InputError(f"received: expected a time that has passed, got {text}")
    return found


def parse_deadline(text: str, received: datetime) -> datetime:
    """Until when: `48h` after it was received (m, h, d, w), or a time.

    Raises:
        InputError: neither, or a time before it was received.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdecimal() and unit in _SPAN and 0 < int(number[:7]) <= _FAR:
        return received + timedelta(**{_SPAN[unit]: int(number)})
    try:
        found = parse_moment(text, received)
    except InputError:
        raise InputError(
            f"deadline: expected 48h (m, h, d, w), or a time such as 2026-11-29T14:00Z, got {text[:40]!r}"
        ) from None
    if found <= received:
        raise InputError(
            f"deadline: expected a time after {received:%Y-%m-%d %H:%M} UTC, when it was received, got {text}"
        )
    return found


def _due(standing: CaseStanding) -> datetime:
    return standing.record.due_at or standing.record.received_at + timedelta(days=_FAR)
