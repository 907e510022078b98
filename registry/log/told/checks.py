"""Rows that were read, compared with what the log tells of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, cast

from rasura.registry.log.entry import identify_record
from rasura.registry.log.record_digest import Record, fingerprint
from rasura.registry.log.told.lines import INFO, Told, refuse

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rasura.registry._storage.records import EntryRecord

__all__ = ["check_absent", "check_actions", "check_entries", "check_kind", "check_told", "check_unfinished"]


def check_told(session: Session, record: Record) -> None:
    """Refuse a row that is not the one which the last entry about it tells of.

    Sessions that look at tables as they are, as an audit does, are not held to it.

    Raises:
        AuditError: it was changed or added behind the log's back.
    """
    told = cast("Told | None", session.info.get(INFO))
    if told is None:
        return
    what = identify_record(record)
    if what in told.seen and told.seen[what] == record and what in told.records:
        return
    if told.records.get(what) is None:
        refuse(f"{what[0]} {what[1][:12]} is in the tables, and no entry of the log tells of it")
    if told.records[what] != fingerprint(record):
        refuse(f"{what[0]} {what[1][:12]} is not what the last entry about it tells of")
    told.seen[what] = record


def check_kind(session: Session, kind: str, found: Iterable[Record]) -> None:
    """Refuse a list of all rows of a kind that lacks some of which the log tells.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(INFO))
    if told is not None:
        here = {identify_record(record)[1] for record in found}
        check_absent(session, kind, [key for noun, key in told.records if noun == kind and key not in here])


def check_absent(session: Session, kind: str, keys: Collection[str]) -> None:
    """Refuse that a row is gone of which the log tells.

    Raises:
        AuditError: naming it.
    """
    told = cast("Told | None", session.info.get(INFO))
    for key in keys:
        if told is not None and (kind, key) in told.records:
            refuse(f"{kind} {key[:12]}, of which the log tells, is not in the tables")


def check_entries(session: Session, entries: Iterable[EntryRecord]) -> None:
    """Refuse entries whose bytes are not those that were signed.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(INFO))
    for entry in entries:
        if told is not None and not (
            0 <= entry.index < len(told.lines) and told.lines[entry.index].leaf == entry.leaf_hash
        ):
            refuse(f"entry {entry.index} is not the one that was signed")


def check_unfinished(session: Session, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries without an end that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(INFO))
    if told is not None and (odd := sorted(told.open ^ {entry.index for entry in found})):
        refuse(
            f"entry {odd[0]} {'has no end' if odd[0] in told.open else 'has an end'} by the log, and not by its column"
        )


def check_actions(session: Session, action: str, found: Iterable[EntryRecord]) -> None:
    """Refuse a list of all entries of an action that is not what the log gives.

    Raises:
        AuditError: naming one.
    """
    told = cast("Told | None", session.info.get(INFO))
    if told is not None:
        expected = {at for at, line in enumerate(told.lines) if line.action == action}
        if odd := sorted(expected ^ {entry.index for entry in found}):
            refuse(f"entry {odd[0]} is {told.lines[odd[0]].action} by the log, and not by its column")
