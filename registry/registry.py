"""The registry: what exists, what is applied where, and who said so.

    with Registry.open(find_location(Path.cwd())) as registry:
        registry.add_patch(record, files, Draft("alice", "takedown 118", "patch.add", "success"))

Every method that changes something takes the draft of an audit entry. The change and its entry are one transaction:
both are there, or neither. Methods that add give False where the same thing was there already; then nothing is
written, not even an entry. Reads see one snapshot and never wait for writers longer than a commit takes.

All methods raise BusyError where another process holds the registry, RegistryError where the database or the disk
fails, and AuditError where the log was tampered with; then nothing was changed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from rasura.registry._resources import bases, cases, evaluations, hosts, keys, policies, stacks
from rasura.registry._resources.bases import Bases
from rasura.registry._resources.cases import Cases
from rasura.registry._resources.create import foresee, found_registry, open_journal, upgrade
from rasura.registry._resources.evaluations import Evaluations
from rasura.registry._resources.hosts import Hosts
from rasura.registry._resources.keys import Keys
from rasura.registry._resources.log import Log
from rasura.registry._resources.patches import patch_rows, signatures
from rasura.registry._resources.patches.patches import NewPatch, Patches
from rasura.registry._resources.patches.signatures import NewSignature, Signatures
from rasura.registry._resources.policies import Policies
from rasura.registry._resources.stacks import Stacks
from rasura.registry._storage.database.database import BUSY_SECONDS
from rasura.registry._storage.location import Location, find_location
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.record_digest import Record
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.log_key import LogKey
from rasura.registry.log.writer import Clock

__all__ = ["EntryFilter", "NewPatch", "NewSignature", "Registry", "find_location"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Registry(Keys, Bases, Patches, Signatures, Hosts, Evaluations, Stacks, Policies, Cases, Log):
    """One registry, open. Use it as a context manager, from one thread at a time; open another for another thread.

    What it does with each noun stands in `rasura.registry._resources`; here it is made, opened and closed.
    """

    @classmethod
    def create(
        cls,
        location: str | Path,
        *,
        actor: str = "rasura",
        reason: str = "",
        home: Path | None = None,
        now: Clock = _utc_now,
        busy_seconds: float = BUSY_SECONDS,
    ) -> "Registry":
        """Makes a registry and opens it: the folder appears whole or not at all.

        Args:
            location: the folder that gets `.rasura`, that folder itself, or a PostgreSQL URL.
            actor: who makes it, for the first entry of the log.
            reason: why, for the same entry.
            home: the folder of blobs and keys where a URL does not name one.
            now: the clock.
            busy_seconds: how long to wait for other processes.

        Raises:
            ExistsError: there is one already.
            RegistryError: it cannot be written; nothing is left behind.
        """
        place = Location.of(location, home)
        found_registry(place, Draft(actor, reason, "registry.create", "success"), now, busy_seconds)
        return cls(open_journal(place, now, busy_seconds))

    @classmethod
    def foresee(cls, location: str | Path, *, home: Path | None = None, busy_seconds: float = BUSY_SECONDS) -> Location:
        """Says where `create` would make a registry; nothing is written. Arguments as for `create`.

        Raises:
            ExistsError: there is one already.
            RegistryError: the database cannot be read.
        """
        place = Location.of(location, home)
        foresee(place, busy_seconds)
        return place

    @classmethod
    def open(
        cls,
        location: str | Path,
        *,
        home: Path | None = None,
        now: Clock = _utc_now,
        busy_seconds: float = BUSY_SECONDS,
    ) -> "Registry":
        """Opens a registry and checks its schema; nothing is written. Arguments as for `create`.

        Raises:
            NoRegistryError: there is none.
            SchemaError: another version, or tables and triggers that are not ours.
        """
        return cls(open_journal(Location.of(location, home), now, busy_seconds))

    @classmethod
    def upgrade(
        cls,
        location: str | Path,
        *,
        actor: str = "rasura",
        reason: str = "",
        home: Path | None = None,
        now: Clock = _utc_now,
        busy_seconds: float = BUSY_SECONDS,
        dry_run: bool = False,
    ) -> str | None:
        """Brings a registry that an older program made to this one's schema. Arguments as for `create`.

        With `dry_run`, nothing is written.

        Returns:
            The version it was at; None where there was nothing to do.

        Raises:
            NoRegistryError: there is none.
            SchemaError: a version that this program does not know, or tables and triggers that are not ours.
            RegistryError: it cannot be written; nothing was changed.
        """
        draft = Draft(actor, reason, "registry.upgrade", "success")
        return upgrade(Location.of(location, home), draft, now, busy_seconds, dry_run=dry_run)

    def close(self) -> None:
        """Gives up the connections."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def location(self) -> Location:
        """Where it is."""
        return self._journal.location

    @property
    def keys_folder(self) -> Path:
        """Where private keys lie, 0700."""
        return self.location.keys

    @property
    def origin(self) -> str:
        """Name of the audit log: the first line of its checkpoints."""
        return self._journal.origin

    @property
    def log_key(self) -> LogKey:
        """The key that signs the audit log."""
        return self._journal.key

    def records(self, session: Session) -> Iterator[Record]:
        """Every record that the tables hold, of every kind that the log tells of: what an audit compares with it."""
        yield from keys.every(session)
        yield from bases.every_record(session)
        yield from bases.every_retain_set(session)
        yield from bases.every_basis(session)
        yield from patch_rows.every(session)
        yield from signatures.every(session)
        yield from hosts.every(session)
        yield from evaluations.every(session)
        yield from stacks.every(session)
        yield from policies.every(session)
        yield from cases.every(session)

    def now(self) -> datetime:
        """The registry's clock."""
        return self._journal.now()
