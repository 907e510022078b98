"""Rows of public keys."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import ExistsError
from rasura.patches.types import KeyId
from rasura.registry._storage.lookup import abbreviated
from rasura.registry._storage.records import KeyRecord
from rasura.registry._storage.tables import KeyRow
from rasura.registry.log.entry import Change, change_of

__all__ = ["every", "insert", "load", "update"]

_HINT = "rasura key list"


def insert(session: Session, record: KeyRecord) -> Change | None:
    """Adds a key; the same key under the same name changes nothing, trusted or not.

    Raises:
        ExistsError: the key has another name here, or the name another key.
    """
    same = session.get(KeyRow, record.key_id)
    if same is not None and (same.name, same.pem) == (record.name, record.pem):
        return None
    if same is not None:
        raise ExistsError(f"key {record.key_id[:12]}: expected it to be new, it is here as {same.name}", hint=_HINT)
    if session.scalar(select(KeyRow.key_id).where(KeyRow.name == record.name)) is not None:
        raise ExistsError(f"key: the name {record.name} belongs to another key", hint=_HINT)
    session.add(
        KeyRow(
            key_id=record.key_id,
            name=record.name,
            pem=record.pem,
            owned=record.owned,
            trusted=record.trusted,
            revoked_at=record.revoked_at,
            added_at=record.added_at,
        )
    )
    return change_of(record)


def update(
    session: Session, ref: str, *, trusted: bool | None = None, revoked_at: datetime | None = None
) -> Change | None:
    """Sets trust or revocation; a key that was revoked keeps its first date.

    Raises:
        NotFoundError, AmbiguousIdError: no such key, or several.
    """
    before = load(session, ref)
    after = before
    if trusted is not None:
        after = replace(after, trusted=trusted)
    if revoked_at is not None and before.revoked_at is None:
        after = replace(after, revoked_at=revoked_at)
    if after == before:
        return None
    row = session.get_one(KeyRow, before.key_id)
    row.trusted, row.revoked_at = after.trusted, after.revoked_at
    return change_of(after, before)


def load(session: Session, ref: str) -> KeyRecord:
    """The key with this name, identifier or abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such key, or several.
    """
    row = session.scalar(select(KeyRow).where(KeyRow.name == ref))
    if row is None:
        row = session.get_one(KeyRow, abbreviated(session, KeyRow.key_id, ref, "key", _HINT))
    return _record(row)


def every(session: Session) -> tuple[KeyRecord, ...]:
    """All keys by name."""
    return tuple(map(_record, session.scalars(select(KeyRow).order_by(KeyRow.name))))


def _record(row: KeyRow) -> KeyRecord:
    return KeyRecord(KeyId(row.key_id), row.name, row.pem, row.owned, row.trusted, row.revoked_at, row.added_at)
