"""Verifying the audit log: the entries, the tree over them, the signatures, and that the tables are what they tell.

What each part catches, from an attacker who can write the database but not the `keys` folder:

* an entry that was changed, swapped, forged or removed: the tree's root is no longer the one that was signed;
* a checkpoint that was changed or signed by another key: the signature;
* a tail that was cut, or an old copy that was restored: `last_signed` knows a longer log;
* an entry in the name of somebody whose key did not sign it, where the policy asks for that: the actor's signature;
* a row of the tables that was changed while the log was left alone: replaying the log gives another digest.

Whoever holds the signing key can write a log that passes all of this. Only a checkpoint kept elsewhere shows that:
compare one that you kept with `LogReport.checkpoint`.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError
from rasura.patches.types import KeyId
from rasura.registry._storage.database.tables import CheckpointRow, EntryPatchRow, EntryRow, KeyRow
from rasura.registry.log.entries.record_digest import Record
from rasura.registry.log.entries.replay import compare
from rasura.registry.log.log_key import LogKey
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note, verify_note
from rasura.registry.log.rotation import KeyChain, read_chain
from rasura.registry.log.verifying.faults import HINT, find_fault
from rasura.registry.log.verifying.stored import read_stored_entries
from rasura.registry.log.verifying.walk import Walk

__all__ = ["CLOSELY", "Audited", "LogReport", "verify_log"]

CLOSELY: Final = 10_000
"""Of how many of the newest checkpoints the signature is verified unless more is asked for: a second of work."""

_BATCH: Final = 2000


class Audited(Protocol):
    """What an audit asks of a registry. The log lies below everything that it tells of, so it names no `Registry`."""

    @property
    def log_key(self) -> LogKey:
        """The key that signs the log, and its memory."""

    def snapshot(self) -> AbstractContextManager[Session]:
        """One snapshot of all tables as they are."""

    def records(self, session: Session) -> Iterable[Record]:
        """Every record that the tables hold, of every kind that the log tells of."""


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a sound log says of itself."""

    vkey: str
    """The public key that signs now, in the spelling of C2SP signed notes; its name is the log's."""
    size: int
    root: bytes
    """Merkle root over all entries: 32 bytes."""
    checkpoint: str
    """The newest signed note. Keep a copy where nobody can change it, and compare later."""
    first: datetime
    last: datetime
    unfinished: tuple[int, ...]
    """Entries that began something which no entry ended."""
    backwards: tuple[int, ...]
    """Entries whose time is before that of the entry in front of them: a clock was set back."""
    pinned: bool = False
    """Whether the key came from outside the registry; else the registry was believed when it named its own."""
    replaced: bool = False
    """Whether the key from outside is an older one, which has handed the log on since: pin `vkey` from now on."""
    rotations: tuple[int, ...] = ()
    """Entries at which the log was handed to another key, signed by the old one and the new."""
    remembered: bool = True
    """Whether the registry's memory of what it signed last was at hand, which shows a cut tail."""
    signed: int = 0
    """Entries that carry a signature of who acted; of all others it is claimed."""
    kept: int | None = None
    """Size of the checkpoint from outside that this log continues; None where none was given."""
    signatures: int = 0
    """Of how many checkpoints, the newest among them, the signature was verified."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What a log is held against: all that does not come out of its own database."""

    here: tuple[VerifyKey, ...]
    """The key in the registry's folder; while it is handed on, the next one as well."""
    memory: Checkpoint | None
    """What that key signed last."""
    vkey: VerifyKey | None
    """A key from outside."""
    kept: Checkpoint | None = None
    """A checkpoint from outside."""

    @classmethod
    def read(cls, key: LogKey, vkey: VerifyKey | None) -> "_Given":
        """With what lies in the folder of the log's key, if it is here."""
        memory = key.recall().committed if key.is_here() else None
        return cls(tuple(own for own in (key.public_here(), key.next_here()) if own is not None), memory, vkey)

    def check(self, chain: KeyChain) -> None:
        """Refuse a log that names another key than the one that is here, or that came from outside.

        Raises:
            AuditError: it does.
        """
        if self.here and chain.last not in self.here:  # of a rotation that a crash interrupted, either
            raise AuditError(f"audit log: expected key {self.here[0]}, got {chain.last}", hint=HINT, check="key")
        if self.vkey is not None and self.vkey not in chain.keys:
            raise AuditError(f"audit log: expected key {self.vkey}, got {chain.last}", hint=HINT, check="key")

    @property
    def trees(self) -> list[Checkpoint]:
        """Trees that the log must have been at some time."""
        return [tree for tree in (self.memory, self.kept) if tree is not None]


def verify_log(
    registry: Audited,
    *,
    vkey: VerifyKey | None = None,
    kept: bytes | None = None,
    closely: int | None = CLOSELY,
    batch: int = _BATCH,
) -> LogReport:
    """Verifies the whole log and the tables against it; see the numbers in the code. Needs no secret.

    Args:
        registry: which; a copy without the folder `keys` will do.
        vkey: the log's public key, from somebody who kept it, or one that handed the log on. None: the registry is
            believed when it names its own.
        kept: a checkpoint of this log that somebody kept, a signed note: the log must continue it.
        closely: of how many of the newest checkpoints the signature is verified, beside those that hand the log on;
            None: of all. Of the others the text is compared with the tree: what they sign, the newest signs, too.
        batch: entries in memory at a time.

    Raises:
        AuditError: the first thing found wrong; `details["check"]` names the check and `details["index"]` the entry.
        RegistryError: the database or the key cannot be read.
    """
    # (1): the key and its memory, before the database: between the two readings the log can only have grown.
    given = _Given.read(registry.log_key, vkey)
    with registry.snapshot() as session:
        chain = read_chain(session)
        given.check(chain)
        _check_registry(session)
        if kept is not None:
            given = replace(given, kept=_read_kept(kept, chain))
        pems = {KeyId(row.key_id): row.pem for row in session.scalars(select(KeyRow))}
        size = session.scalar(select(func.max(EntryRow.position))) or 0
        walk = Walk(chain, pems, given.trees, _start(size, closely))
        with closing(read_stored_entries(session, batch)) as entries:
            for stored in entries:
                # (2): each entry's place, bytes and copied columns, and the signature of who acted, if it has one.
                # (3): its checkpoint's signature, size and root.
                walk.step(stored)
        # (4): the log is as long as it was when it was last signed, and had that root there.
        walk.finish(session.scalar(select(func.max(CheckpointRow.size))) or 0)
        # (5): the tables are what the entries tell, and hold no row that belongs to nothing.
        _check_whole(session)
        compare(registry.records(session), walk.replay)
    return _report(walk, chain, given)


def _report(walk: Walk, chain: KeyChain, given: _Given) -> LogReport:
    """What a walk saw that came to its end."""
    return LogReport(
        vkey=str(chain.last),
        size=walk.tree.size,
        root=walk.tree.root(),
        checkpoint=walk.note,
        first=walk.times[0],
        last=walk.times[1],
        unfinished=tuple(sorted(walk.begun)),
        backwards=tuple(walk.backwards),
        pinned=given.vkey is not None,
        replaced=given.vkey not in (None, chain.last),
        rotations=chain.at,
        remembered=given.memory is not None,
        signed=walk.actors.signed,
        kept=given.kept.size if given.kept else None,
        signatures=walk.signatures,
    )


def _start(last: int, closely: int | None) -> int:
    """From which entry on the signatures of checkpoints are verified."""
    return 0 if closely is None else last + 1 - closely


def _read_kept(note: bytes, chain: KeyChain) -> Checkpoint:
    """The checkpoint that somebody kept, if one of this log's keys signed it."""
    try:
        parsed = parse_note(note)
        verify_note(parsed, chain.keys)
        return Checkpoint.parse(parsed.text)
    except AuditError as error:
        raise AuditError(f"kept checkpoint: {error.message}", hint="--checkpoint FILE", check="kept") from None


def _check_whole(session: Session) -> None:
    """What SQLite itself finds wrong with its file: torn pages, indexes that differ, and rows without their parent.

    A row whose parent is missing is part of no record, and would become part of one as soon as the parent is added.
    PostgreSQL cannot be asked; there such rows need a superuser.
    """
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise AuditError(f"database: expected a sound file, got: {found}", hint=HINT, check="database")
    orphan = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if orphan is not None:
        raise AuditError(
            f"audit log and tables differ: a row of {orphan[0]} belongs to no {orphan[2]}", hint=HINT, check="tables"
        )


def _check_registry(session: Session) -> None:
    stray = session.scalar(
        select(EntryPatchRow.position).where(EntryPatchRow.position.not_in(select(EntryRow.position))).limit(1)
    )
    if stray is not None:
        find_fault("patches", stray, "patches are listed for an entry that is not there")
