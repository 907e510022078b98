"""Entries of the usual form, read at a fraction of the time: one pattern knows all their bytes."""

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, cast

from rasura.patches._io import canonical_json
from rasura.patches.errors import InputError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import EntryRecord, Outcome
from rasura.registry._storage.records.validation import from_instant
from rasura.registry.log.entries.entry_parts import ACTION, MAX_LISTED, OUTCOMES, VERSION, Placement, RowChange
from rasura.registry.log.merkle import hash_leaf

__all__ = ["read_quickly"]

_PLAIN: Final = r"[ !#-\[\]-~]"  # ASCII that no JSON text escapes
_HEX: Final = r"[0-9a-f]{64}"
_WHOLE: Final = r"(?:0|[1-9][0-9]{0,15})"
_DETAIL: Final = rf'"({_PLAIN}*)":(?:"({_PLAIN}*)"|(-?{_WHOLE}))'
_DETAIL_FORM: Final = re.compile(_DETAIL)
_FORM: Final = re.compile(
    rf'\{{"actor":\{{"name":"(?P<actor>{_PLAIN}{{0,4096}})"\}},(?:"base":"(?P<base>{_HEX})",)?"changes":\[\],'
    rf'(?:"closes":(?P<closes>{_WHOLE}),)?"details":\{{(?P<details>(?:{_DETAIL}(?:,{_DETAIL})*)?)\}},'
    rf'(?:"effect":\{{(?:"after":"(?P<after>{_HEX})")?(?(after)(?:,(?="before"))?)(?:"before":"(?P<before>{_HEX})")?\}},)?'
    rf'(?:"host":"(?P<host>{_PLAIN}{{0,4096}})",)?"id":"(?P<id>{_PLAIN}{{0,36}})","index":(?P<index>{_WHOLE}),'
    rf'"log":"(?P<log>{_PLAIN}{{0,255}})",'
    rf'"outcome":\{{(?:"error":"(?P<error>{_PLAIN}{{0,4096}})",)?"status":"(?P<status>{"|".join(OUTCOMES)})"\}},'
    rf'"patches":(?P<patches>\[(?:"{_HEX}"(?:,"{_HEX}")*)?\]),"reason":\{{"text":"(?P<reason>{_PLAIN}{{0,4096}})"\}},'
    rf'"time":"(?P<time>{_PLAIN}{{27}})","type":"(?P<type>{ACTION.pattern})","v":{VERSION}\}}'
)
"""The bytes of an entry in which nothing is escaped and no row changed, as nearly all are."""


def read_quickly(
    data: bytes, patches: Sequence[PatchId] | None
) -> tuple[EntryRecord, Placement, tuple[RowChange, ...]] | None:
    """What the careful reader gives, of entries of the usual form; None of every other: that one says what is wrong.

    Canonical JSON has one order of names, so one pattern knows all bytes of such an entry, but for the details, whose
    names must ascend. It takes a fraction of the time.
    """
    found = _FORM.fullmatch(data.decode("latin-1"))
    if found is None:
        return None
    listed_here = tuple(PatchId(each) for each in found["patches"][2:-2].split('","') if each)
    index, closes, details = int(found["index"]), found["closes"], _read_plain_details(found["details"])
    if (
        details is None
        or (patches is not None and listed_here != tuple(patches))
        or len(listed_here) > MAX_LISTED
        or max(index, int(closes or 0)) > canonical_json.MAX_INTEGER
    ):
        return None
    try:
        time = from_instant(found["time"])
    except InputError:
        return None
    base, before, after = (None if each is None else Digest(each) for each in found.group("base", "before", "after"))
    record = EntryRecord(
        index=index,
        time=time,
        actor=found["actor"],
        action=found["type"],
        outcome=cast("Outcome", found["status"]),
        reason=found["reason"],
        patches=listed_here,
        base=base,
        host=found["host"],
        before=before,
        after=after,
        details=MappingProxyType(details),
        leaf_hash=hash_leaf(data),
        error=found["error"],
        closes=None if closes is None else int(closes),
        entry_id=found["id"],
    )
    return record, Placement(found["log"], index, found["id"], time), ()


def _read_plain_details(text: str) -> dict[str, str | int] | None:
    """The details; None where names do not ascend, or a number is too large."""
    details: dict[str, str | int] = {}
    last = ""
    for at, (name, said, number) in enumerate(_DETAIL_FORM.findall(text)):
        if (at and name <= last) or (number and (abs(int(number)) > canonical_json.MAX_INTEGER or number == "-0")):
            return None
        details[name] = int(number) if number else said
        last = name
    return details
