"""Rows that were read, compared with what the log tells of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from rasura.registry.log.entries.entry_changes import identify_record
from rasura.registry.log.entries.record_digest import Record, fingerprint
from rasura.registry.log.told.lines import refuse
from rasura.registry.log.told.told import INFO, Source, Told

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rasura.registry._storage.records.records import EntryRecord

__all__ = [
    "check_absent",
    "check_actions",
    "check_entries",
    "check_kind",
    "check_newest",
    "check_told",
    "check_unfinished",
]

T = TypeVar("T")


def check_told(session: Session, record: Record) -> None:
    """Refuse a row that is not the one which the last entry about it tells of.

    Sessions that look at tables as they are, as an audit does, are not held to it.

    Raises:
        AuditError: it was changed or added behind the log's back.
    """
    source = cast("Source | None", session.info.get(INFO))
    if source is None:
        return
    what = identify_record(record)
    if source.told.seen.get(what) == record:
        return
    digest = fingerprint(record)
    found = _ask(session, lambda told: told.record(what), lambda told: told == digest)
    if found is None:
        refuse(f"{what[0]} {what[1][:12]} is in the tables, and no entry of the log tells of it")
    if found != digest:
        refuse(f"{what[0]} {what[1][:12]} is not what the last entry about it tells of")
    source.told.seen[what] = record


def check_kind(session: Session, kind: str, found: Iterable[Record]) -> None:
    """Refuse a list of all rows of a kind that lacks some of which the log tells.

    Raises:
        AuditError: naming one.
    """
    here = {identify_record(record)[1] for record in found}
    missing = _ask(session, lambda told: told.keys(kind) - here, lambda missing: not missing)
    for key in sorted(missing or ()):
        refuse(f"{kind} {key[:12]}, of which the log tells, is not in the tables")


def check_absent(session: Session, kind: str, keys: Collection[str]) -> None:
    """Refuse that a row is gone of which the log tells.

    Raises:
        AuditError: naming it.
    """
    for key in keys:
        what = kind, key
        if _ask(session, lambda told, what=what: told.record(what), lambda found: found is None) is not None:  # type: ignore[misc]
            refuse(f"{kind} {key[:12]}, of which the log tells, is not in the tables")


def check_entries(session: Session, entries: Iterable[EntryRecord]) -> None:
    """Refuse entries whose bytes are not those that were signed.

    Raises:
        AuditError: naming one.
    """
    if session.info.get(INFO) is None:
        return
    for entry in entries:
        index, leaf = entry.index, entry.leaf_hash
        if _ask(session, lambda told, at=index: told.leaf(at), lambda told, own=leaf: told == own) != leaf:  # type: ignore[misc]
            refuse(f"entry {index} is not the one that was signed")


def check_unfinished(session: Session, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries without an end that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    here = {entry.index for entry in found}
    begun = _ask(session, lambda told: told.begun(), lambda begun: begun == here)
    if begun is not None and (odd := sorted(begun ^ here)):
        refuse(f"entry {odd[0]} {'has no end' if odd[0] in begun else 'has an end'} by the log, and not by its column")


def check_actions(session: Session, action: str, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries of an action that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    here = {entry.index for entry in found}
    expected = _ask(session, lambda told: told.of_action(action), lambda expected: expected == here)
    if expected is not None and (odd := sorted(expected ^ here)):
        refuse(f"entry {odd[0]} is {_action(session, odd[0])} by the log, and not by its column")


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
        refuse(f"entry {odd[-1]} is {_action(session, odd[-1])} by the log, and not by its column")


def _ask(session: Session, question: Callable[[Told], T], good: Callable[[T], bool]) -> T | None:
    """What the log tells, asked once more of the log itself where the index gives no good answer or none at all.

    None of a session that is not held to it.
    """
    source = cast("Source | None", session.info.get(INFO))
    if source is None:
        return None
    try:
        answer = question(source.told)
        if good(answer) or not source.told.stored:
            return answer
    except sqlite3.Error:
        pass
    file, source = source.told.file, Source(source.anew(session), source.anew)
    session.info[INFO] = source
    answer = question(source.told)
    if good(answer):  # so the file was wrong
        file.distrusted = True
    return answer


def _action(session: Session, index: int) -> str:
    found = _ask(session, lambda told: told.action(index), lambda _: True)
    assert found is not None
    return found
