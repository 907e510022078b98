"""Patches and their files."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rasura.patches._io.json_fields import show
from rasura.patches.errors import AmbiguousIdError, DigestMismatchError, NotFoundError
from rasura.patches.format.file_names import MANIFEST, SIGNATURE, name_further
from rasura.patches.format.manifest import MANIFEST_LIMIT, Manifest
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._resources.bases import insert_basis, insert_retain_set
from rasura.registry._resources.patches import signatures
from rasura.registry._resources.patches.patch_rows import (
    every,
    find_beginning,
    find_named,
    find_not_signed_by,
    find_retired,
    insert,
    load,
    load_some,
    outline_some,
    read_page,
    resolve,
)
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import is_abbreviation
from rasura.registry._storage.database.tables import PatchRow
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.base_records import BasisRecord, RetainSetRecord
from rasura.registry._storage.records.records import Draft, PatchOutline, PatchRecord, SignatureRecord
from rasura.registry.log.entries.entry import RowChange

__all__ = ["NewPatch", "Patches"]

_FULL: Final = 64
_SHORT: Final = 12
_CANDIDATES: Final = 8
# Canonical JSON has one spelling of "supersedes nothing", and no text can contain it: its quotes would be escaped.
_NOTHING: Final = b'"supersedes":[]'


@dataclass(frozen=True, slots=True)
class NewPatch:
    """A patch that is to be registered.

    Attributes:
        record: what the registry keeps of it.
        files: bytes of each of `record.files`.
        entry: the audit entry; it names the patch and its base where it names nothing.
        basis: added in the same transaction where it is new.
        retain_set: added in the same transaction where it is new.
        further: signatures by other keys than the record's, each verified: they are kept beside it.
    """

    record: PatchRecord
    files: Mapping[str, bytes]
    entry: Draft
    basis: BasisRecord | None = None
    retain_set: RetainSetRecord | None = None
    further: Mapping[KeyId, bytes] = field(default_factory=dict)

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

    def insert(self, session: Session) -> Sequence[RowChange | None]:
        """Its rows; what it refers to goes first. Of a patch that is here already, only signatures can be new."""
        if session.get(PatchRow, self.record.patch_id) is not None:
            return [insert(session, self.record), *self._sign(session)]
        space = None if self.basis is None else insert_basis(session, self.basis)
        prompts = None if self.retain_set is None else insert_retain_set(session, self.retain_set)
        session.flush()
        added = insert(session, self.record)
        session.flush()
        return [space, prompts, added, *self._sign(session)]

    def _sign(self, session: Session) -> list[RowChange | None]:
        """Every signature that came with it; the patch's own one is left out where it is the first."""
        record, signed = self.record, dict(self.further)
        if record.key_id is not None and SIGNATURE in self.files:
            signed[record.key_id] = self.files[SIGNATURE]
        return [
            signatures.insert(session, SignatureRecord(sha256(bundle), record.patch_id, key_id, record.added_at))
            for key_id, bundle in sorted(signed.items())
        ]


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
            for bundle in each.further.values():
                self.blobs.put(bundle, sha256(bundle))
        found = [False] * len(new)

        def work(at: int, session: Session) -> Sequence[RowChange | None]:
            found[at] = session.get(PatchRow, new[at].record.patch_id) is None
            return new[at].insert(session)

        self._journal.change_all([(each.draft, functools.partial(work, at)) for at, each in enumerate(new)])
        return tuple(found)

    def patches(self, *, concept: str | None = None, base: Digest | None = None) -> tuple[PatchRecord, ...]:
        """All patches, the oldest first, or those that erase `concept` or were computed on `base`."""
        with self.reading() as session:
            return every(session, concept=concept, base=base)

    def page_patches(
        self, limit: int, *, before: PatchId | None = None, base: Digest | None = None
    ) -> tuple[PatchRecord, ...]:
        """At most so many patches, the newest first; `before` is the last of the page before.

        Raises:
            NotFoundError: there is no such patch to go on from.
        """
        with self.reading() as session:
            return read_page(session, limit, before=before, base=base)

    def list_patch_ids(self) -> tuple[PatchId, ...]:
        """The identifiers of all patches; whether their rows are those that the log tells of is not looked at."""
        with self.reading() as session:
            return tuple(PatchId(patch_id) for patch_id in session.scalars(select(PatchRow.patch_id)))

    def patches_of(self, patch_ids: Sequence[PatchId]) -> tuple[PatchRecord, ...]:
        """Those of these patches that are here, the oldest first."""
        with self.reading() as session:
            return load_some(session, patch_ids)

    def outline_patches(self, patch_ids: Sequence[PatchId]) -> dict[PatchId, PatchOutline]:
        """Of those of these patches that are here the little that lists compare; not held to what the log tells."""
        with self.reading() as session:
            return outline_some(session, patch_ids)

    def patches_not_signed_by(self, keys: Collection[KeyId]) -> tuple[PatchRecord, ...]:
        """Signed patches that none of these keys has signed, the oldest first."""
        with self.reading() as session:
            return find_not_signed_by(session, keys)

    def count_patches(self) -> int:
        """How many there are."""
        with self.reading() as session:
            return session.scalars(select(func.count()).select_from(PatchRow)).one()

    def patch(self, ref: str) -> PatchRecord:
        """The patch with this identifier, abbreviation or concept; see `resolve_patch`.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, or several.
        """
        with self.reading() as session:
            return load(session, self._resolved(session, ref, ()))

    def resolve_patch(self, ref: str, *, among: Collection[PatchId] = ()) -> PatchId:
        """The identifier that at least four hexadecimal digits of it, or the concept of a patch, stand for.

        A concept stands for the patch that erases it, if there is one: retired ones and those that another one of the
        same base supersedes are not meant.

        Args:
            ref: what a person typed.
            among: patches of which one is meant rather than any other, such as those that are applied; of these, what
                is superseded or retired counts, too.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, or several (named in `details["candidates"]`).
        """
        with self.reading() as session:
            return self._resolved(session, ref, among)

    def list_superseded(self, record: PatchRecord) -> tuple[PatchId, ...]:
        """The patches that this one says it supersedes; they need not be here.

        Raises:
            NotFoundError, DigestMismatchError, FormatError: its manifest is missing or damaged.
        """
        data = self.blobs.read(record.files[MANIFEST], limit=MANIFEST_LIMIT)
        return () if _NOTHING in data else Manifest.from_bytes(data).supersedes

    def retired_patches(self) -> frozenset[PatchId]:
        """Patches that were retired and not taken back into use: hidden from lists, and left alone by what protects."""
        with self.reading() as session:
            return find_retired(session)

    def _resolved(self, session: Session, ref: str, among: Collection[PatchId]) -> PatchId:
        if len(ref) == _FULL and is_abbreviation(ref):
            return resolve(session, ref)
        named = find_named(session, ref)
        if not named:
            return resolve(session, ref)
        begun = find_beginning(session, ref) if is_abbreviation(ref) else []
        preferred = [p for p in (*named, *begun) if p in among]
        found = tuple(dict.fromkeys(preferred or [*self._current(session, named), *begun]))
        if len(found) == 1:
            return found[0]
        if not found:
            listed = ", ".join(p[:_SHORT] for p in named)
            raise NotFoundError(
                f"patch: {show(ref)} is erased by retired patches only: {listed}",
                hint=f"rasura patch unretire {named[-1][:_SHORT]}",
            )
        told = "; ".join(map(_tell, (load(session, p) for p in found[:_CANDIDATES])))
        raise AmbiguousIdError(
            f"patch: {show(ref)} names several: {told}{'; …' if len(found) > _CANDIDATES else ''}",
            hint="type an id",
            candidates=list(found[:_CANDIDATES]),
        )

    def _current(self, session: Session, named: Sequence[PatchId]) -> list[PatchId]:
        """Those of these patches that are in use: not retired, and not superseded by another of them."""
        retired = find_retired(session)
        records = [load(session, p) for p in named if p not in retired]
        if len(records) == 1:
            return [records[0].patch_id]
        old = {(earlier, record.base) for record in records for earlier in self.list_superseded(record)}
        return [record.patch_id for record in records if (record.patch_id, record.base) not in old]

    def patch_files(self, ref: str) -> dict[str, bytes]:
        """All files of a patch, verified against their digests: its own, and further signatures.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, several, or a blob is missing.
            DigestMismatchError: a blob was changed.
        """
        with self.reading() as session:
            record = load(session, self._resolved(session, ref, ()))
            further = signatures.of_patch(session, record.patch_id)
        named = {**record.files, **{name_further(signature.key_id): signature.digest for signature in further}}
        return {name: self.blobs.read(digest) for name, digest in named.items()}


def _tell(record: PatchRecord) -> str:
    return f"{record.patch_id[:_SHORT]} ({', '.join(record.concepts)}, of {record.added_at:%Y-%m-%d %H:%M})"
