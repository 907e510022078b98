"""What the entries of the audit log say the tables are, and whether they are.

Each change in an entry carries the digest of the whole record after it (`fingerprint`), so the last one of
each record must be the digest of the row that is there now; a row that no entry tells of, or one that is gone, shows
as well. The sets of hosts and the named stacks are also followed step by step, because entries spell them out for
people to read.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NoReturn

from rasura.patches.errors import AuditError, RasuraError
from rasura.patches.types import Digest, PatchId
from rasura.registry.log.entries.entry_changes import identify_record, members
from rasura.registry.log.entries.entry_parts import Deed, RowChange
from rasura.registry.log.entries.record_digest import Record, fingerprint

__all__ = ["Replay", "compare"]

_CHANGES: Final = ("success", "done")
_FOLLOWED: Final = ("host", "stack")
_HINT: Final = "keep this copy as evidence, then restore the registry from a backup"


class Replay:
    """The tables as the entries so far describe them."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[Digest, int]] = {}
        """Kind and identifier to the record's digest and the entry that gave it."""
        self.stacks: dict[tuple[str, str], dict[PatchId, int] | None] = {}
        """Host or stack to its patches in sixteenths; None once an entry moved too many to spell them out."""

    def follow(self, entry: Deed, changes: tuple[RowChange, ...]) -> None:
        """Applies the changes of one entry.

        Raises:
            AuditError: an entry changes something although it says that nothing was done, or removes what is not there.
        """
        if changes and entry.outcome not in _CHANGES:
            _broken(entry.index, f"entry {entry.index} says {entry.outcome} and changes {changes[0].kind}")
        for change in changes:
            what = change.kind, change.id
            if change.record is None:
                self._remove(what, entry.index)
                continue
            self.records[what] = (change.record, entry.index)
            if change.kind in _FOLLOWED:
                self.stacks[what] = _moved(self.stacks.get(what, {}), change.applied)

    def _remove(self, what: tuple[str, str], index: int) -> None:
        if self.records.pop(what, None) is None:
            _broken(index, f"entry {index} removes {what[0]} {what[1][:12]}, which was not there")
        self.stacks.pop(what, None)


def compare(records: Iterable[Record], replay: Replay) -> None:
    """Checks that the tables hold exactly the records that the log tells of.

    Args:
        records: all that the tables hold, read as they are asked for.
        replay: what the log tells.

    Raises:
        AuditError: a row that was changed, added or removed behind the log's back.
    """
    untold = dict(replay.records)
    for record in _read(records):
        kind, key = identify_record(record)
        told = untold.pop((kind, key), None)
        if told is None:
            _broken(None, f"{kind} {key[:12]} is in the tables, and no entry of the log tells of it")
        if told[0] != fingerprint(record):
            _broken(told[1], f"{kind} {key[:12]} is not what entry {told[1]} tells of it")
        if kind in _FOLLOWED and replay.stacks.get((kind, key)) not in (None, members(record)):
            _broken(told[1], f"{kind} {key[:12]} has other patches than the entries up to {told[1]} give")
    for (kind, key), (_, index) in untold.items():
        _broken(index, f"{kind} {key[:12]}, which entry {index} tells of, is not in the tables")


def _read(records: Iterable[Record]) -> Iterator[Record]:
    try:
        yield from records
    except (RasuraError, ValueError, TypeError) as error:
        if isinstance(error, AuditError):
            raise
        _broken(None, f"a row of the tables is no record at all: {error}")


def _moved(stack: Mapping[PatchId, int] | None, moves: Mapping[PatchId, int] | None) -> dict[PatchId, int] | None:
    if stack is None or moves is None:
        return None
    return {patch_id: strength for patch_id, strength in {**stack, **moves}.items() if strength}


def _broken(index: int | None, message: str) -> NoReturn:
    raise AuditError(f"audit log and tables differ: {message}", hint=_HINT, check="tables", index=index)
