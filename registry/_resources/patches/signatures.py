"""Further signatures over patches: each key once for each patch, beside the first, which is the patch's own."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.errors import DigestMismatchError, NotFoundError
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.tables import KeyRow, PatchRow, SignatureRow
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft, SignatureRecord
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_absent, check_kind, check_told

__all__ = ["NewSignature", "Signatures", "every", "insert", "of_patch"]


@dataclass(frozen=True, slots=True)
class NewSignature:
    """A signature that is to be registered.

    Attributes:
        record: what the registry keeps of it.
        bundle: its bytes, verified by whoever brings them.
        entry: the audit entry; it names the patch where it names nothing.
    """

    record: SignatureRecord
    bundle: bytes
    entry: Draft


class Signatures(Opened):
    """What a registry does with further signatures."""

    def add_signatures(self, new: Sequence[NewSignature]) -> tuple[bool, ...]:
        """Adds signatures over registered patches in one transaction, with an entry each: all of them, or none.

        Returns:
            For each whether it is new here: a key that has signed a patch already brings nothing new.

        Raises:
            DigestMismatchError: bytes are not those of their record; nothing was stored.
            NotFoundError: a patch or key is not in this registry.
        """
        for each in new:
            if (got := sha256(each.bundle)) != each.record.digest:
                raise DigestMismatchError(f"signature: expected SHA-256 {each.record.digest}, got {got}")
        for each in new:  # before the row, which promises that they are there
            self.blobs.put(each.bundle, each.record.digest)
        steps = [(_draft(each), functools.partial(_insert, each.record)) for each in new]
        return tuple(entry is not None for entry in self._journal.change_all(steps))

    def signatures(self, patch_id: PatchId | None = None) -> tuple[SignatureRecord, ...]:
        """The further signatures over a patch by key, or over all patches."""
        with self.reading() as session:
            return every(session) if patch_id is None else of_patch(session, patch_id)


def insert(session: Session, record: SignatureRecord) -> RowChange | None:
    """Adds a signature; where the key has signed the patch already, its first signature stays.

    Raises:
        NotFoundError: the patch or the key is not in this registry.
    """
    patch = session.get(PatchRow, record.patch_id)
    if patch is None:
        raise NotFoundError(f"signature: expected patch {record.patch_id[:12]} here, got none")
    if session.get(KeyRow, record.key_id) is None:
        raise NotFoundError(f"signature: expected key {record.key_id[:12]} here, got none", hint="rasura key list")
    same = (SignatureRow.patch_id == record.patch_id) & (SignatureRow.key_id == record.key_id)
    if patch.key_id == record.key_id or session.scalar(select(SignatureRow).where(same)) is not None:
        return None
    check_absent(session, "signature", (record.digest,))
    session.add(
        SignatureRow(digest=record.digest, patch_id=record.patch_id, key_id=record.key_id, added_at=record.added_at)
    )
    return encode_change(record)


def _insert(record: SignatureRecord, session: Session) -> list[RowChange | None]:
    return [insert(session, record)]


def of_patch(session: Session, patch_id: PatchId) -> tuple[SignatureRecord, ...]:
    """The further signatures over a patch, by key."""
    query = select(SignatureRow).where(SignatureRow.patch_id == patch_id).order_by(SignatureRow.key_id)
    return tuple(_record(session, row) for row in session.scalars(query))


def every(session: Session) -> tuple[SignatureRecord, ...]:
    """All further signatures, by patch and key."""
    query = select(SignatureRow).order_by(SignatureRow.patch_id, SignatureRow.key_id)
    found = tuple(_record(session, row) for row in session.scalars(query))
    check_kind(session, "signature", found)
    return found


def _record(session: Session, row: SignatureRow) -> SignatureRecord:
    found = SignatureRecord(Digest(row.digest), PatchId(row.patch_id), KeyId(row.key_id), row.added_at)
    check_told(session, found)
    return found


def _draft(each: NewSignature) -> Draft:
    return replace(each.entry, patches=each.entry.patches or (each.record.patch_id,))
