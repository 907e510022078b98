"""Public keys that sign patches: adding, trusting, revoking, finding."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import ExistsError, RevokedKeyError, UntrustedKeyError
from rasura.patches.types import KeyId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import expand_id
from rasura.registry._storage.database.tables import KeyRow
from rasura.registry._storage.records.records import Draft, KeyRecord
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_absent, check_kind, check_told
from rasura.registry.log.writer import LogWriter

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import SigningKey

__all__ = ["AskPassword", "Keys", "every"]

_HINT = "rasura key list"


AskPassword: TypeAlias = Callable[[str], bytes | None]
"""From the name of a key that is locked to its password; None where nobody gave one."""


class Keys(Opened):
    """What a registry does with keys."""

    def __init__(self, journal: LogWriter) -> None:
        super().__init__(journal)
        self.ask_password: AskPassword = lambda _: None
        """How a locked key's password is found; whoever opens the registry may say."""

    def act_as(self, private: "SigningKey") -> None:
        """From now on every entry is signed by who acts, with this key.

        Raises:
            UntrustedKeyError: it is not known here, or not trusted.
            RevokedKeyError: it was revoked.
        """
        record = next((key for key in self.keys() if key.key_id == private.public.key_id), None)
        if record is None or not record.trusted:
            raise UntrustedKeyError(
                f"the key of who acts ({private.public.key_id[:12]}) is not trusted here: expected one that is",
                hint="rasura key trust FILE",
                key=private.public.key_id,
            )
        if record.revoked_at is not None:
            raise RevokedKeyError(
                f"key {record.name!r} was revoked on {record.revoked_at:%Y-%m-%d} and signs nothing more",
                hint="rasura key list",
                key=record.key_id,
            )
        self._journal.actor = private

    @property
    def acting_key(self) -> KeyId | None:
        """The key that signs the entries for who acts; None: nobody's, and who acts is what they say."""
        return None if self._journal.actor is None else self._journal.actor.public.key_id

    def add_key(self, record: KeyRecord, entry: Draft) -> bool:
        """Adds a public key; False where it is here under this name.

        Raises:
            ExistsError: the key has another name here, or the name another key.
        """
        return self._journal.change(entry, lambda session: [insert(session, record)]) is not None

    def set_trusted(self, key: str, trusted: bool, entry: Draft) -> bool:
        """Sets whether signatures by this key (name, id or abbreviation) count; False where they do so already.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        return self._journal.change(entry, lambda session: [update(session, key, trusted=trusted)]) is not None

    def revoke_key(self, key: str, at: datetime, entry: Draft) -> bool:
        """Revokes a key for good; False where it is revoked, whose first date stays.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        return self._journal.change(entry, lambda session: [update(session, key, revoked_at=at)]) is not None

    def keys(self) -> tuple[KeyRecord, ...]:
        """All keys by name."""
        with self.reading() as session:
            return every(session)

    def key(self, ref: str) -> KeyRecord:
        """The key with this name, identifier or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        with self.reading() as session:
            return load(session, ref)


def insert(session: Session, record: KeyRecord) -> RowChange | None:
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
    check_absent(session, "key", (record.key_id,))
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
    return encode_change(record)


def update(
    session: Session, ref: str, *, trusted: bool | None = None, revoked_at: datetime | None = None
) -> RowChange | None:
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
    return encode_change(after, before)


def load(session: Session, ref: str) -> KeyRecord:
    """The key with this name, identifier or abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such key, or several.
    """
    row = session.scalar(select(KeyRow).where(KeyRow.name == ref))
    if row is None:
        row = session.get_one(KeyRow, expand_id(session, KeyRow.key_id, ref, "key", _HINT, names=KeyRow.name))
    return _record(session, row)


def every(session: Session) -> tuple[KeyRecord, ...]:
    """All keys by name."""
    found = tuple(_record(session, row) for row in session.scalars(select(KeyRow).order_by(KeyRow.name)))
    check_kind(session, "key", found)
    return found


def _record(session: Session, row: KeyRow) -> KeyRecord:
    found = KeyRecord(KeyId(row.key_id), row.name, row.pem, row.owned, row.trusted, row.revoked_at, row.added_at)
    check_told(session, found)
    return found
