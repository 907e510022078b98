"""Patches and their files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from rasura.patches.errors import DigestMismatchError
from rasura.patches.types import Digest, PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.records import BasisRecord, Draft, PatchRecord, RetainSetRecord
from rasura.registry.log.entry import Change
from rasura.registry.rows import bases, patches

__all__ = ["Patches"]


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
