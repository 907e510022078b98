"""Patches and their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from rasura.patches.errors import DigestMismatchError
from rasura.patches.types import Digest, PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records import BasisRecord, Draft, PatchRecord, RetainSetRecord
from rasura.registry.log.entry import Change
from rasura.registry.rows import bases, patches

__all__ = ["NewPatch", "Patches"]


@dataclass(frozen=True, slots=True)
class NewPatch:
    """A patch that is to be registered.

    Attributes:
        record: what the registry keeps of it.
        files: bytes of each of `record.files`.
        entry: the audit entry; it names the patch and its base where it names nothing.
        basis: added in the same transaction where it is new.
        retain_set: added in the same transaction where it is new.
    """

    record: PatchRecord
    files: Mapping[str, bytes]
    entry: Draft
    basis: BasisRecord | None = None
    retain_set: RetainSetRecord | None = None

    @property
    def draft(self) -> Draft:
        """The entry, with the patch and its base."""
        entry, record = self.entry, self.record
        return replace(entry, patches=entry.patches or (record.patch_id,), base=entry.base or record.base)

    def check_files(self) -> None:
        """Refuses files that are not those of the record.

        Raises:
            DigestMismatchError: others, more or fewer.
        """
        what, expected = f"patch {self.record.patch_id[:12]}", self.record.files
        if self.files.keys() != expected.keys():
            raise DigestMismatchError(f"{what}: expected the files {sorted(expected)}, got {sorted(self.files)}")
        size = sum(map(len, self.files.values()))
        if size != self.record.size:
            raise DigestMismatchError(f"{what}: expected {self.record.size} bytes in all, got {size}")
        for name, data in self.files.items():
            if (got := sha256(data)) != expected[name]:
                raise DigestMismatchError(f"{what}: expected {name} with SHA-256 {expected[name]}, got {got}")

    def insert(self, session: Session) -> Sequence[Change | None]:
        """Its rows; what it refers to goes first, and a patch that is here already brings nothing new."""
        if patches.has(session, self.record.patch_id):
            return [patches.insert(session, self.record)]
        space = None if self.basis is None else bases.insert_basis(session, self.basis)
        prompts = None if self.retain_set is None else bases.insert_retain_set(session, self.retain_set)
        session.flush()
        return [space, prompts, patches.insert(session, self.record)]


class Patches(Opened):
    """What a registry does with patches."""

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
        return self.add_patches([NewPatch(record, files, entry, basis, retain_set)])[0]

    def add_patches(self, new: Sequence[NewPatch]) -> tuple[bool, ...]:
        """Adds patches and their files in one transaction, with an entry each: all of them, or none.

        Blobs go in first. Where the rows do not follow, those that were new stay: no row names them, and the next try
        finds them there.

        Returns:
            For each whether it is new here.

        Raises:
            DigestMismatchError: the files of one are not those of its record, and nothing was stored; or a damaged blob
                lies where they belong.
            ExistsError: an identity is here with other files.
            NotFoundError: a basis, retain set or key is not in this registry.
        """
        for each in new:
            each.check_files()
        for each in new:
            for name, data in each.files.items():  # before the row, which promises that they are there
                self.blobs.put(data, each.record.files[name])
        entries = self._journal.change_all([(each.draft, each.insert) for each in new])
        return tuple(entry is not None for entry in entries)

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
