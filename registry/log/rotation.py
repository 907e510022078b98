"""The keys that signed a log, one after the other: what hands it on, and who vouches for what.

The registry's row names the first key, and cannot be changed. An entry `log.rotate` names the old key and the new one,
and the checkpoint after it is signed by both: the old key's holder says who follows, and the new one's that the log up
to here is the one that it goes on with. Before it the old key signs alone, after it the new one alone. So whoever
pinned either can verify all of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError, FormatError, InputError
from rasura.registry._storage.database.tables import CheckpointRow, EntryRow, RegistryRow
from rasura.registry.log.entries.entry import decode
from rasura.registry.log.notes.signed_note import VerifyKey, parse_note

__all__ = ["NEW", "OLD", "ROTATE", "KeyChain", "read_chain", "read_key", "was_handed_on"]

ROTATE: Final = "log.rotate"
OLD: Final = "old"
NEW: Final = "new"


@dataclass(frozen=True, slots=True)
class KeyChain:
    """The keys of a log, the first one first, and the entries that hand it on."""

    keys: tuple[VerifyKey, ...]
    at: tuple[int, ...]
    """Index of each entry that rotates; one less than there are keys."""

    @property
    def last(self) -> VerifyKey:
        """The one that signs now."""
        return self.keys[-1]

    @property
    def name(self) -> str:
        """The log's."""
        return self.last.name

    def signers(self, index: int) -> Sequence[VerifyKey]:
        """Who must have signed the checkpoint after an entry: one key, or two where it is handed on."""
        before = sum(rotated < index for rotated in self.at)
        return self.keys[before : before + (2 if index in self.at else 1)]


def read_key(session: Session) -> VerifyKey:
    """The public key that a registry says its log is signed with now: the last that it was handed to, or its first.

    Raises:
        AuditError: it names none, or one that is none.
    """
    first = _first(session)
    if _signs_still(session, first):
        return first
    newest = session.scalar(_ROTATIONS.order_by(EntryRow.position.desc()).limit(1))
    return first if newest is None else _handed(newest, first.name)[1]


def read_chain(session: Session) -> KeyChain:
    """The keys by what the registry names and the entries tell; whether they signed is for the walk to see.

    Raises:
        AuditError: it names no key, or an entry hands on what was not in its hands.
    """
    keys = [_first(session)]
    at: list[int] = []
    for row in session.scalars(_ROTATIONS.order_by(EntryRow.position)):
        old, new = _handed(row, keys[0].name)
        if old != keys[-1]:
            raise AuditError(
                f"audit log, entry {row.position}: it hands on a log of {old}, not of {keys[-1]}", check="key"
            )
        keys.append(new)
        at.append(row.position)
    return KeyChain(tuple(keys), tuple(at))


def was_handed_on(session: Session) -> bool:
    """Whether the log is signed by another key than its first.

    Raises:
        AuditError: the registry names no key.
    """
    return not _signs_still(session, _first(session))


def _signs_still(session: Session, first: VerifyKey) -> bool:
    """Whether the newest checkpoint names the first key alone: then no entry that hands the log on is searched for.

    Whoever makes it name that key without having it makes a signature that does not verify.
    """
    note = session.scalar(select(CheckpointRow.note).order_by(CheckpointRow.size.desc()).limit(1))
    return note is not None and [each.key_id for each in parse_note(note.encode()).signatures] == [first.key_id]


_ROTATIONS: Final = select(EntryRow).where(EntryRow.action == ROTATE, EntryRow.outcome == "success")


def _first(session: Session) -> VerifyKey:
    row = session.get(RegistryRow, 1)
    if row is None:
        raise AuditError("audit log: expected a registry that names its key, got none", check="key")
    key = VerifyKey.parse(row.vkey)
    if key.name != row.origin:
        raise AuditError(f"audit log: expected a key of {row.origin}, got {key}", check="key")
    return key


def _handed(row: EntryRow, name: str) -> tuple[VerifyKey, VerifyKey]:
    """The old key and the new one of an entry."""
    try:
        details = decode(row.body, ())[0].details
    except (FormatError, InputError) as error:
        raise AuditError(f"audit log, entry {row.position}: {error.message}", check="entry") from None
    old, new = (VerifyKey.parse(str(details.get(side, ""))) for side in (OLD, NEW))
    if {old.name, new.name} != {name}:
        raise AuditError(f"audit log, entry {row.position}: it hands on another log", check="key")
    return old, new
