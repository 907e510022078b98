"""The registry: what exists, what is applied where, and who said so.

    with Registry.open(find_location(Path.cwd())) as registry:
        registry.add_patch(record, files, Draft("alice", "takedown 118", "patch.add", "success"))

Every method that changes something takes the draft of an audit entry. The change and its entry are one transaction:
both are there, or neither. Methods that add give False where the same thing was there already; then nothing is
written, not even an entry. Reads see one snapshot and never wait for writers longer than a commit takes.

All methods raise BusyError where another process holds the registry, RegistryError where the database or the disk
fails, and AuditError where the log was tampered with; then nothing was changed.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from rasura.patches.errors import DigestMismatchError
from rasura.patches.names import Digest, PatchId
from rasura.registry.blobs import BlobStore
from rasura.registry.engine import BUSY_SECONDS
from rasura.registry.entry import Change
from rasura.registry.founding import found, open_journal
from rasura.registry.journal import Clock, Journal
from rasura.registry.location import Location, find_location
from rasura.registry.logkey import LogKey
from rasura.registry.records import (
    BaseRecord,
    BaseSummary,
    BasisRecord,
    Draft,
    EntryRecord,
    HostRecord,
    KeyRecord,
    PatchRecord,
    RetainSetRecord,
)
from rasura.registry.rows import bases, hosts, keys, ledger, patches
from rasura.registry.rows.ledger import EntryFilter

__all__ = ["EntryFilter", "Registry", "find_location"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Registry:
    """One registry, open. Use it as a context manager, from one thread at a time; open another for another thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.blobs = BlobStore(journal.location.blobs)

    # ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────

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
        found(place, Draft(actor, reason, "registry.create", "success"), now, busy_seconds)
        return cls(open_journal(place, now, busy_seconds))

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

    def now(self) -> datetime:
        """The registry's clock."""
        return self._journal.now()

    def reading(self) -> AbstractContextManager[Session]:
        """One snapshot of all tables, for the registry's own modules."""
        return self._journal.reading()

    # ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_key(self, record: KeyRecord, entry: Draft) -> bool:
        """Adds a public key; False where it is here under this name.

        Raises:
            ExistsError: the key has another name here, or the name another key.
        """
        return self._journal.change(entry, lambda session: [keys.insert(session, record)]) is not None

    def set_trusted(self, key: str, trusted: bool, entry: Draft) -> bool:
        """Sets whether signatures by this key (name, id or abbreviation) count; False where they do so already.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        return self._journal.change(entry, lambda session: [keys.update(session, key, trusted=trusted)]) is not None

    def revoke_key(self, key: str, at: datetime, entry: Draft) -> bool:
        """Revokes a key for good; False where it is revoked, whose first date stays.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        return self._journal.change(entry, lambda session: [keys.update(session, key, revoked_at=at)]) is not None

    def keys(self) -> tuple[KeyRecord, ...]:
        """All keys by name."""
        with self.reading() as session:
            return keys.every(session)

    def key(self, ref: str) -> KeyRecord:
        """The key with this name, identifier or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        with self.reading() as session:
            return keys.load(session, ref)

    # ── Bases, retain sets, protected spaces ─────────────────────────────────────────────────────────────────────

    def add_base(self, record: BaseRecord, entry: Draft) -> bool:
        """Adds a base; False where these weights are here under this name.

        Raises:
            ExistsError: the weights have another name here, or the name other weights.
        """
        draft = replace(entry, base=entry.base or record.digest)
        return self._journal.change(draft, lambda session: [bases.insert(session, record)]) is not None

    def bases(self) -> tuple[BaseSummary, ...]:
        """All bases by name, without their parameters."""
        with self.reading() as session:
            return bases.every(session)

    def base(self, ref: str) -> BaseRecord:
        """The base with this name, digest or abbreviation, with its parameters.

        Raises:
            NotFoundError, AmbiguousIdError: no such base, or several.
        """
        with self.reading() as session:
            return bases.load(session, ref)

    def add_retain_set(self, record: RetainSetRecord, entry: Draft) -> bool:
        """Adds a retain set; False where these prompts are here, under whatever name.

        Raises:
            ExistsError: the name belongs to other prompts.
        """
        return self._journal.change(entry, lambda session: [bases.insert_retain_set(session, record)]) is not None

    def retain_sets(self) -> tuple[RetainSetRecord, ...]:
        """All retain sets by name."""
        with self.reading() as session:
            return bases.every_retain_set(session)

    def retain_set(self, ref: str) -> RetainSetRecord:
        """The retain set with this name, digest or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such retain set, or several.
        """
        with self.reading() as session:
            return bases.load_retain_set(session, ref)

    def add_basis(self, record: BasisRecord, entry: Draft) -> bool:
        """Adds the basis of a protected space; False where it is here."""
        return self._journal.change(entry, lambda session: [bases.insert_basis(session, record)]) is not None

    def bases_of_spaces(self) -> tuple[BasisRecord, ...]:
        """All bases of protected spaces by digest."""
        with self.reading() as session:
            return bases.every_basis(session)

    def basis(self, ref: str) -> BasisRecord:
        """The basis with this digest or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such basis, or several.
        """
        with self.reading() as session:
            return bases.load_basis(session, ref)

    # ── Patches ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add_patch(
        self,
        record: PatchRecord,
        files: Mapping[str, bytes],
        entry: Draft,
        *,
        basis: BasisRecord | None = None,
        retain_set: RetainSetRecord | None = None,
    ) -> bool:
        """Adds a patch and its files; False where it is here. The entry names it where it names nothing.

        Args:
            record: what the registry keeps of it.
            files: bytes of each of `record.files`.
            entry: the audit entry.
            basis: added in the same transaction where it is new.
            retain_set: added in the same transaction where it is new.

        Raises:
            DigestMismatchError: the files are not those of the record; nothing was stored.
            ExistsError: the identity is here with other files.
            NotFoundError: its basis, retain set or key is not in this registry.
        """
        _check_files(record, files)
        for name, data in files.items():  # before the row, which promises that they are there
            self.blobs.put(data, record.files[name])

        def work(session: Session) -> Sequence[Change | None]:
            return _insert_patch(session, record, basis, retain_set)

        draft = replace(entry, patches=entry.patches or (record.patch_id,), base=entry.base or record.base)
        return self._journal.change(draft, work) is not None

    def patches(self, *, concept: str | None = None, base: Digest | None = None) -> tuple[PatchRecord, ...]:
        """All patches, the oldest first, or those that erase `concept` or were computed on `base`."""
        with self.reading() as session:
            return patches.every(session, concept=concept, base=base)

    def patch(self, ref: str) -> PatchRecord:
        """The patch with this identifier or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, or several.
        """
        with self.reading() as session:
            return patches.load(session, ref)

    def resolve_patch(self, prefix: str) -> PatchId:
        """The identifier that at least four hexadecimal digits stand for.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, or several (named in `details["candidates"]`).
        """
        with self.reading() as session:
            return patches.resolve(session, prefix)

    def patch_files(self, ref: str) -> dict[str, bytes]:
        """All files of a patch, verified against their digests.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, several, or a blob is missing.
            DigestMismatchError: a blob was changed.
        """
        return {name: self.blobs.read(digest) for name, digest in self.patch(ref).files.items()}

    # ── Hosts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def hosts(self, *, patch: PatchId | None = None) -> tuple[HostRecord, ...]:
        """All hosts by location, or those that `patch` is applied to."""
        with self.reading() as session:
            return hosts.every(session, patch=patch)

    def host(self, ref: str) -> HostRecord:
        """The host with this identifier or location.

        Raises:
            NotFoundError: no such host.
        """
        with self.reading() as session:
            return hosts.load(session, ref)

    def find_host(self, ref: str) -> HostRecord | None:
        """The host with this identifier or location, None where there is none."""
        with self.reading() as session:
            return hosts.find(session, ref)

    def set_host(self, record: HostRecord, entry: Draft) -> EntryRecord:
        """Adds a host, or replaces what is known of it, its stack included. The entry is written even without a change.

        Raises:
            ExistsError: another host is at this location.
            NotFoundError: its base, or a patch of its stack, is not in this registry.
        """
        draft = replace(entry, host=entry.host or record.host_id, base=entry.base or record.base)
        return self._journal.append(draft, lambda session: [hosts.save(session, record)])

    # ── The log ──────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, draft: Draft) -> EntryRecord:
        """Appends an entry that changes nothing else: a refusal, a failure, a beginning.

        Raises:
            InputError: the draft cannot be an entry.
            NotFoundError: the entry it closes is not open.
        """
        return self._journal.append(draft)

    def entries(
        self,
        which: EntryFilter | None = None,
        *,
        newest: bool = True,
        limit: int | None = None,
        after: int | None = None,
    ) -> tuple[EntryRecord, ...]:
        """Entries by index, the newest first unless asked otherwise; `after` is the last index of the page before."""
        with self.reading() as session:
            return ledger.every(session, which or EntryFilter(), newest=newest, limit=limit, after=after)

    def unfinished(self, host: str | None = None) -> tuple[EntryRecord, ...]:
        """Entries that began something (on `host`) which no later entry ended, the oldest first."""
        with self.reading() as session:
            return ledger.unfinished(session, host)


def _insert_patch(
    session: Session, record: PatchRecord, basis: BasisRecord | None, retain_set: RetainSetRecord | None
) -> Sequence[Change | None]:
    """What the patch refers to goes first; a patch that is here already brings nothing new."""
    if patches.has(session, record.patch_id):
        return [patches.insert(session, record)]
    space = None if basis is None else bases.insert_basis(session, basis)
    prompts = None if retain_set is None else bases.insert_retain_set(session, retain_set)
    session.flush()
    return [space, prompts, patches.insert(session, record)]


def _check_files(record: PatchRecord, files: Mapping[str, bytes]) -> None:
    if files.keys() != record.files.keys():
        raise DigestMismatchError(
            f"patch {record.patch_id[:12]}: expected the files {sorted(record.files)}, got {sorted(files)}"
        )
    size = sum(map(len, files.values()))
    if size != record.size:
        raise DigestMismatchError(f"patch {record.patch_id[:12]}: expected {record.size} bytes in all, got {size}")
