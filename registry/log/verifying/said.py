"""What an entry says, as far as verifying a log rests on it: read from its bytes as strictly as ever, without a record.

Most of the time that a log takes would go into making objects which nobody looks at.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Outcome
from rasura.registry._storage.records.validation import instant
from rasura.registry.log.entries.entry import read_carefully
from rasura.registry.log.entries.entry_parts import RowChange
from rasura.registry.log.entries.plain_form import (
    list_patches,
    match_plain,
    read_plain_changes,
    read_plain_details,
    read_plain_number,
    read_plain_time,
)

__all__ = ["Said", "read_said"]


class Said(NamedTuple):
    """What an entry says."""

    log: str
    index: int  # type: ignore[assignment]  # nobody looks for a value in it
    time: str
    """As it stands in the bytes, in the form of `instant`: such texts sort as times do."""
    action: str
    outcome: Outcome
    host: str | None
    closes: int | None
    details: Mapping[str, str | int]
    changes: tuple[RowChange, ...]
    plain: bool = True
    """Whether it has the usual form, in which nobody signs it."""


def read_said(body: bytes, patches: Sequence[str]) -> Said:
    """What these bytes say; `patches` are those that the table lists beside them.

    Raises:
        FormatError: as `rasura.registry.log.entries.entry.decode`.
    """
    return _read_plain(body, patches) or _read_other(body, patches)


def _read_plain(body: bytes, patches: Sequence[str]) -> Said | None:
    plain = match_plain(body)
    if plain is None or plain.patches != list_patches(patches) or read_plain_time(plain.time) is None:
        return None
    index, closes = read_plain_number(plain.index), None
    details, changes = read_plain_details(plain.details), read_plain_changes(plain.changes)
    if index is None or details is None or changes is None:
        return None
    if plain.closes is not None and (closes := read_plain_number(plain.closes)) is None:
        return None
    outcome = cast("Outcome", plain.status)
    return Said(plain.log, index, plain.time, plain.action, outcome, plain.host, closes, details, changes)


def _read_other(body: bytes, patches: Sequence[str]) -> Said:
    entry, place, changes = read_carefully(body, [PatchId(each) for each in patches])
    return Said(
        log=place.log,
        index=place.index,
        time=instant(entry.time),
        action=entry.action,
        outcome=entry.outcome,
        host=entry.host,
        closes=entry.closes,
        details=entry.details,
        changes=changes,
        plain=False,
    )
