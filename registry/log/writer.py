"""The one way to change a registry: rows and their audit entry in one transaction, signed.

The order of a change, which `change` follows:

1. `log.lock` is taken, so that `last_signed` tells of one writer at a time;
2. the database transaction begins, with the right to write;
3. the rows change;
4. the entry is appended, or several, if several things change: the tree is compared with `last_signed`, the intention
   written there, the checkpoints signed;
5. the transaction commits;
6. `last_signed` says so.

A crash before 5 leaves the old state and an intention that the next append replaces; after 5, the new state, which the
intention explains.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from rasura.patches.errors import InputError, RevokedKeyError
from rasura.registry._storage.database.database import Database
from rasura.registry._storage.database.tables import CheckpointRow, KeyRow
from rasura.registry._storage.location import Location
from rasura.registry._storage.records.records import Draft, EntryRecord
from rasura.registry.log import ledger
from rasura.registry.log.actors import must_be_signed, refuse_unsigned
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.stored_entries import CASE
from rasura.registry.log.ledger import Appended, Telling
from rasura.registry.log.log_key import LastSigned, LogKey
from rasura.registry.log.rotation import NEW, OLD
from rasura.registry.log.told.index import ToldIndex
from rasura.registry.log.told.told import Told

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import SigningKey

__all__ = ["CASE", "TICKET", "Belonging", "Clock", "LogWriter", "Work", "name_cases"]

Clock: TypeAlias = Callable[[], datetime]
Work: TypeAlias = Callable[[Session], Sequence[RowChange | None]]
"""Changes rows and says which; None stands for what was there already."""

TICKET: Final = "ticket"
_ASKED: Final = "requester"
_CHANGES: Final = ("success", "done")


@dataclass(frozen=True, slots=True)
class Belonging:
    """Which cases entries belong to.

    Attributes:
        always: every entry.
        tickets: cases, too; an entry that names one of them as its ticket belongs to that, one without a ticket to all.
    """

    always: tuple[str, ...] = ()
    tickets: tuple[str, ...] = ()

    def mark(self, draft: Draft) -> Draft:
        """The draft with its cases; who asked is known to the case, and is left out of the log."""
        ticket, details = str(draft.details.get(TICKET, "")), dict(draft.details)
        own = self.tickets if not ticket else tuple(each for each in self.tickets if each == ticket)
        cases = dict.fromkeys((*name_cases(draft.details), *self.always, *own))
        if not cases:
            return draft
        if own:
            details.pop(_ASKED, None)
        return replace(draft, details={**details, CASE: " ".join(cases)})


def name_cases(details: Mapping[str, str | int]) -> tuple[str, ...]:
    """The cases that an entry with these details names."""
    return tuple(str(details.get(CASE, "")).split())


class LogWriter:
    """The database and the log key of one registry."""

    def __init__(self, location: Location, origin: str, now: Clock, busy_seconds: float) -> None:
        self.location = location
        self.origin = origin
        self.key = LogKey(location.keys, origin)
        self.now = now
        self.told = ToldIndex(self.key, location.keys)
        self.cases = Belonging()
        self.actor: SigningKey | None = None
        """The key of who acts: it signs every entry."""
        self.asks_signature: Callable[[Session], bool] = lambda _: False
        """Whether the policy in force asks for that signature; whoever knows policies says."""
        self._busy = busy_seconds
        self._database = Database(location, busy_seconds=busy_seconds)

    @contextmanager
    def belonging(self, cases: Belonging) -> Iterator[None]:
        """All that is logged inside belongs to these cases, beside those that it belongs to already."""
        before = self.cases
        self.cases = Belonging((*before.always, *cases.always), (*before.tickets, *cases.tickets))
        try:
            yield
        finally:
            self.cases = before

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One snapshot of all tables, in which every row is held to what the log tells of it.

        Raises:
            AuditError: the log is not what was signed last.
        """
        # The memory before the snapshot: between the two the log can only have grown.
        memory = self.key.recall() if self.key.is_here() else None
        with self._database.reading() as session:
            self.told.attach(session, memory)
            yield session

    def snapshot(self) -> AbstractContextManager[Session]:
        """One snapshot of all tables as they are: for an audit, which compares them itself."""
        return self._database.reading()

    def change(self, draft: Draft, work: Work) -> EntryRecord | None:
        """Does the work and logs it; None, and no entry, where nothing changed.

        Raises:
            InputError: the draft says that nothing was done.
            BusyError, RegistryError, AuditError: nothing was changed.
        """
        return self.change_all([(draft, work)])[0]

    def change_all(self, steps: Sequence[tuple[Draft, Work]]) -> tuple[EntryRecord | None, ...]:
        """Does all the work in one transaction, in this order, and logs each piece: all of it, or nothing.

        Returns:
            For each step its entry; None, and no entry, where it changed nothing.

        Raises:
            InputError: a draft says that nothing was done.
            BusyError, RegistryError, AuditError, and whatever a step raises: nothing was changed.
        """
        for draft, _ in steps:
            _check_outcome(draft)
        return self._write(steps, always=False)

    def append(self, draft: Draft, work: Work | None = None) -> EntryRecord:
        """Logs the draft whether or not the work changes anything.

        Raises:
            InputError: the draft cannot be an entry, or says that nothing was done where there is work.
            BusyError, RegistryError, AuditError: nothing was changed.
        """
        if work is not None:
            _check_outcome(draft)
        (entry,) = self._write([(draft, work or (lambda _: ()))], always=True)
        assert entry is not None
        return entry

    def begin(self, draft: Draft, work: Work) -> EntryRecord:
        """Logs the first entry; the work makes the tables, or refuses a database that has some.

        Raises:
            BusyError, RegistryError: nothing was changed.
        """
        (entry,) = self._write([(draft, work)], always=True, first=True)
        assert entry is not None
        return entry

    def rotate(self, draft: Draft) -> EntryRecord:
        """Hands the log to a new key: the old one and the new sign the entry that says so.

        A crash before the commit leaves a key that nobody uses, which the next rotation replaces; after it, one that
        the next writer puts in its place, because the registry names it.

        Raises:
            InputError: the draft cannot be an entry.
            BusyError, RegistryError, AuditError: nothing was changed.
        """
        _check_outcome(draft)
        with self.key.locked(self._busy):
            with self._database.writing() as session:
                told = self._told(session)
                ledger.settle(session, self.key)
                old, new = self.key.verify_key, self.key.prepare_next()
                said = replace(draft, details={**draft.details, OLD: str(old), NEW: str(new)})
                self._check_actor(session, [said])
                telling = Telling(said, (), self.now())
                added = ledger.append(session, self.key, [telling], renewed=new, actor=self.actor)
            self.key.adopt_next()
            self._keep(added, told)
        return added.entries[0]

    def close(self) -> None:
        """Gives up the connections."""
        self.told.close()
        self._database.close()

    def _write(
        self, steps: Sequence[tuple[Draft, Work]], *, always: bool, first: bool = False
    ) -> tuple[EntryRecord | None, ...]:
        added: Appended | None = None
        found: list[EntryRecord | None] = [None] * len(steps)
        with self.key.locked(self._busy):
            with self._database.writing() as session:
                # Of a log that begins here, nothing was told; tables that are there are another's.
                told = None if first else self._told(session)
                if told is not None:
                    self._check_actor(session, [draft for draft, _ in steps])
                tellings: dict[int, Telling] = {}
                for at, (draft, work) in enumerate(steps):
                    changes = [change for change in work(session) if change is not None]
                    session.flush()  # what the next step looks at
                    self.told.changed(session, changes)
                    if changes or always:
                        tellings[at] = Telling(self.cases.mark(draft), changes, self.now())
                if tellings:
                    signs = None if told is None else self.actor
                    added = ledger.append(session, self.key, tuple(tellings.values()), actor=signs)
                    for at, entry in zip(tellings, added.entries, strict=True):
                        found[at] = entry
            if added is not None:
                self._keep(added, told)
        return tuple(found)

    def _check_actor(self, session: Session, drafts: Sequence[Draft]) -> None:
        """Refuse an entry that who acts has to sign and does not, or with a key that counts no more.

        Raises:
            InputError: the policy in force asks for a signature, and there is no key.
            RevokedKeyError: the key was revoked since it was taken up.
        """
        if self.actor is None:
            if any(must_be_signed(draft.action, draft.outcome) for draft in drafts) and self.asks_signature(session):
                refuse_unsigned()
            return
        row = session.get(KeyRow, self.actor.public.key_id)
        if row is None or not row.trusted or row.revoked_at is not None:
            raise RevokedKeyError(
                f"the key of who acts ({self.actor.public.key_id[:12]}) was revoked meanwhile: expected another",
                hint="--actor-key NAME",
            )

    def _keep(self, added: Appended, told: Told | None) -> None:
        """What the next reading would have to find out again, of a transaction that was committed."""
        self.key.remember(LastSigned(added.signed))
        if told is not None:
            self.told.grow(told, added.lines)

    def _told(self, session: Session) -> Told | None:
        """What the log tells before this transaction; None while the registry is being made or brought up to date."""
        if not inspect(session.connection()).has_table(CheckpointRow.__tablename__):
            return None
        return self.told.fork(session, self.key.recall())


def _check_outcome(draft: Draft) -> None:
    if draft.outcome not in _CHANGES:
        raise InputError(f"audit entry: expected success or done for a change, got {draft.outcome}")
