"""Entries of the usual form, read at a fraction of the time: one pattern knows all their bytes.

Canonical JSON has one order of names and one spelling of each value. So where nothing is escaped, a text of this form
is the only spelling of what it says, but for the names that are data: those of details and of patches that moved,
which must ascend. What has another form is no error; the careful reader (`rasura.registry.log.entries.entry`) says what
it is.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from rasura.patches._io import canonical_json
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import EntryRecord, Outcome
from rasura.registry.log.entries.entry_parts import (
    ACTION,
    MAX_CHANGES,
    MAX_ENTRY_BYTES,
    MAX_LISTED,
    OUTCOMES,
    REMOVABLE,
    VERSION,
    Placement,
    RowChange,
)
from rasura.registry.log.merkle import hash_leaf

__all__ = [
    "PlainEntry",
    "list_patches",
    "match_plain",
    "read_plain_changes",
    "read_plain_details",
    "read_plain_number",
    "read_plain_time",
    "read_quickly",
]

_PLAIN: Final = r"[ !#-\[\]-~]"  # ASCII that no JSON text escapes
_HEX: Final = r"[0-9a-f]{64}"
_WHOLE: Final = r"(?:0|[1-9][0-9]{0,15})"
_TIME: Final = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_DETAIL: Final = rf'"{_PLAIN}*":(?:"{_PLAIN}*"|-?{_WHOLE})'
_DETAIL_PARTS: Final = re.compile(rf'"({_PLAIN}*)":(?:"({_PLAIN}*)"|(-?{_WHOLE}))')
_MOVE: Final = rf'"{_HEX}":-?(?:0|[1-9][0-9]?)'
_MOVE_PARTS: Final = re.compile(rf'"({_HEX})":(-?[0-9]+)')
_MOST_SIXTEENTHS: Final = 64
_CHANGE: Final = (
    rf'\{{(?:"applied":\{{(?:{_MOVE}(?:,{_MOVE})*)?\}},"id":"{_PLAIN}{{0,64}}","kind":"{_PLAIN}{{0,32}}","record":"{_HEX}"'
    rf'|"gone":true,"id":"{_PLAIN}{{0,64}}","kind":"(?:{"|".join(sorted(REMOVABLE))})"'
    rf'|"id":"{_PLAIN}{{0,64}}","kind":"{_PLAIN}{{0,32}}","record":"{_HEX}")\}}'
)
_CHANGE_PARTS: Final = re.compile(
    rf'\{{(?:("applied":)\{{([^}}]*)\}},|("gone":)true,)?"id":"({_PLAIN}*)","kind":"({_PLAIN}*)"(?:,"record":"({_HEX})")?\}}'
)
_FORM: Final = re.compile(
    rf'\{{"actor":\{{"name":"({_PLAIN}{{0,4096}})"\}},(?:"base":"({_HEX})",)?'
    rf'"changes":\[((?:{_CHANGE}(?:,{_CHANGE})*)?)\],(?:"closes":({_WHOLE}),)?'
    rf'"details":\{{((?:{_DETAIL}(?:,{_DETAIL})*)?)\}},'
    rf'(?:"effect":\{{(?:"after":"({_HEX})")?(?:(?:(?<=\{{)|(?<="),)"before":"({_HEX})")?\}},)?'
    rf'(?:"host":"({_PLAIN}{{0,4096}})",)?"id":"({_PLAIN}{{0,36}})","index":({_WHOLE}),"log":"({_PLAIN}{{0,255}})",'
    rf'"outcome":\{{(?:"error":"({_PLAIN}{{0,4096}})",)?"status":"({"|".join(OUTCOMES)})"\}},'
    rf'"patches":(\[(?:"{_HEX}"(?:,"{_HEX}"){{0,{MAX_LISTED - 1}}})?\]),"reason":\{{"text":"({_PLAIN}{{0,4096}})"\}},'
    rf'"time":"({_TIME})","type":"({ACTION.pattern.replace("(", "(?:")})","v":{VERSION}\}}'
)


class PlainEntry(NamedTuple):
    """The parts of an entry's bytes, as they stand there; None for what it leaves out."""

    actor: str
    base: str | None
    changes: str
    """What is between the brackets, `read_plain_changes` reads it."""
    closes: str | None
    details: str
    """What is between the braces, `read_plain_details` reads it."""
    after: str | None
    before: str | None
    host: str | None
    entry_id: str
    index: str  # type: ignore[assignment]  # nobody looks for a value in it
    log: str
    error: str | None
    status: str
    patches: str
    """The list with its brackets, `list_patches` writes it."""
    reason: str
    time: str
    action: str


def match_plain(data: bytes) -> PlainEntry | None:
    """The parts of an entry of the usual form; None of every other.

    The pattern does not hold names to their order, nor numbers and times to their ranges.
    """
    found = _FORM.fullmatch(data.decode("latin-1")) if len(data) <= MAX_ENTRY_BYTES else None
    return None if found is None else PlainEntry._make(found.groups())


def list_patches(patches: Sequence[str]) -> str:
    """Patches as such an entry lists them."""
    return '["' + '","'.join(patches) + '"]' if patches else "[]"


def read_plain_time(text: str) -> datetime | None:
    """The time of a text that has its form; None where no calendar has it."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # the thirtieth of February
        return None


def read_plain_number(text: str) -> int | None:
    """The number of digits that have their form; None where it is too large."""
    number = int(text)
    return number if number <= canonical_json.MAX_INTEGER else None


def read_plain_details(text: str) -> Mapping[str, str | int] | None:
    """The details; None where names do not ascend, or a number is too large."""
    details: dict[str, str | int] = {}
    last: str | None = None
    for name, said, number in _DETAIL_PARTS.findall(text):
        if last is not None and name <= last:
            return None
        details[name] = int(number) if number else said
        if number and (abs(int(number)) > canonical_json.MAX_INTEGER or number == "-0"):
            return None
        last = name
    return details


def read_plain_changes(text: str) -> tuple[RowChange, ...] | None:
    """The changes; None where patches do not ascend, a strength is out of range, or there are too many."""
    if not text:
        return ()
    changes = []
    for moved, moves, gone, key, kind, record in _CHANGE_PARTS.findall(text):
        applied = _read_moves(moves) if moved else None
        if moved and applied is None:
            return None
        changes.append(RowChange(kind, key, None if gone else Digest(record), applied))
    return tuple(changes) if len(changes) <= MAX_CHANGES else None


def _read_moves(text: str) -> dict[PatchId, int] | None:
    moves = [(PatchId(patch_id), int(sixteenths)) for patch_id, sixteenths in _MOVE_PARTS.findall(text)]
    ascend = all(before < after for (before, _), (after, _) in itertools.pairwise(moves))
    within = all(abs(sixteenths) <= _MOST_SIXTEENTHS for _, sixteenths in moves)
    return dict(moves) if ascend and within and ":-0" not in text else None


def read_quickly(
    data: bytes, patches: Sequence[PatchId] | None
) -> tuple[EntryRecord, Placement, tuple[RowChange, ...]] | None:
    """What the careful reader gives, of entries of the usual form; None of every other."""
    plain = match_plain(data)
    if plain is None or (patches is not None and list_patches(patches) != plain.patches):
        return None
    index, closes = read_plain_number(plain.index), read_plain_number(plain.closes or "0")
    details, changes = read_plain_details(plain.details), read_plain_changes(plain.changes)
    time = read_plain_time(plain.time)
    if index is None or closes is None or details is None or changes is None or time is None:
        return None
    base, before, after = (None if each is None else Digest(each) for each in (plain.base, plain.before, plain.after))
    record = EntryRecord(
        index=index,
        time=time,
        actor=plain.actor,
        action=plain.action,
        outcome=cast("Outcome", plain.status),
        reason=plain.reason,
        patches=tuple(PatchId(each) for each in plain.patches[2:-2].split('","') if each),
        base=base,
        host=plain.host,
        before=before,
        after=after,
        details=MappingProxyType(details),
        leaf_hash=hash_leaf(data),
        error=plain.error,
        closes=None if plain.closes is None else closes,
        entry_id=plain.entry_id,
    )
    return record, Placement(plain.log, index, plain.entry_id, time), changes
