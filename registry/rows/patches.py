"""Rows of patches, their concepts and files."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from rasura.patches.errors import ExistsError, NotFoundError
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.lookup import abbreviated
from rasura.registry._storage.records import PatchRecord
from rasura.registry._storage.tables import BasisRow, ConceptRow, FileRow, KeyRow, PatchRow, RetainSetRow
from rasura.registry.log.entry import Change, change_of

__all__ = ["every", "has", "insert", "load", "resolve"]

_HINT = "rasura patch list"

_Row = TypeVar("_Row", ConceptRow, FileRow)


def insert(session: Session, record: PatchRecord) -> Change | None:
    """Adds a patch. Its identity covers its content, so the same patch from elsewhere, or signed anew, changes nothing.

    Raises:
        ExistsError: the identity is here with other files, which no honest manifest can give.
        NotFoundError: its basis, retain set or key is not in this registry.
    """
    if session.get(PatchRow, record.patch_id) is not None:
        _check_same(load(session, record.patch_id), record)
        return None
    _check_references(session, record)
    session.add(
        PatchRow(
            patch_id=record.patch_id,
            anchor=record.anchor,
            method=record.method,
            base=record.base,
            basis=record.basis,
            retain_set=record.retain_set,
            key_id=record.key_id,
            size=record.size,
            added_at=record.added_at,
            source=record.source,
        )
    )
    session.flush()  # concepts and files refer to it
    patch_id = record.patch_id
    session.add_all(ConceptRow(patch_id=patch_id, position=at, concept=c) for at, c in enumerate(record.concepts))
    session.add_all(FileRow(patch_id=patch_id, name=name, digest=digest) for name, digest in record.files.items())
    return change_of(record)


def has(session: Session, patch_id: PatchId) -> bool:
    """Whether this very patch is here."""
    return session.get(PatchRow, patch_id) is not None


def resolve(session: Session, prefix: str) -> PatchId:
    """The identifier that an abbreviation of at least four digits stands for.

    Raises:
        NotFoundError, AmbiguousIdError: no such patch, or several.
    """
    return PatchId(abbreviated(session, PatchRow.patch_id, prefix, "patch", _HINT))


def load(session: Session, ref: str) -> PatchRecord:
    """The patch with this identifier or abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such patch, or several.
    """
    return _records(session, select(PatchRow).where(PatchRow.patch_id == resolve(session, ref)))[0]


def every(session: Session, *, concept: str | None = None, base: Digest | None = None) -> tuple[PatchRecord, ...]:
    """All patches, the oldest first, or those that erase `concept` or were computed on `base`."""
    query = select(PatchRow).order_by(PatchRow.added_at, PatchRow.patch_id)
    if base is not None:
        query = query.where(PatchRow.base == base)
    if concept is not None:
        query = query.where(PatchRow.patch_id.in_(select(ConceptRow.patch_id).where(ConceptRow.concept == concept)))
    return _records(session, query)


def _records(session: Session, query: Select[PatchRow]) -> tuple[PatchRecord, ...]:
    """Three queries, however many patches."""
    rows = session.scalars(query).all()
    inside = query.with_only_columns(PatchRow.patch_id).order_by(None)
    concepts = _grouped(
        session.scalars(select(ConceptRow).where(ConceptRow.patch_id.in_(inside)).order_by(ConceptRow.position)).all()
    )
    files = _grouped(session.scalars(select(FileRow).where(FileRow.patch_id.in_(inside)).order_by(FileRow.name)).all())
    return tuple(_record(row, concepts.get(row.patch_id, []), files.get(row.patch_id, [])) for row in rows)


def _grouped(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.patch_id, []).append(row)
    return groups


def _record(row: PatchRow, concepts: list[ConceptRow], files: list[FileRow]) -> PatchRecord:
    return PatchRecord(
        patch_id=PatchId(row.patch_id),
        concepts=tuple(c.concept for c in concepts),
        anchor=row.anchor,
        method=row.method,
        base=Digest(row.base),
        basis=None if row.basis is None else Digest(row.basis),
        retain_set=None if row.retain_set is None else Digest(row.retain_set),
        key_id=None if row.key_id is None else KeyId(row.key_id),
        files={f.name: Digest(f.digest) for f in files},
        size=row.size,
        added_at=row.added_at,
        source=row.source,
    )


def _check_same(here: PatchRecord, new: PatchRecord) -> None:
    """Files that both have must agree; a signature may differ, because signing again is no new patch."""
    for name in here.files.keys() & new.files.keys() - {"model.sig"}:
        if here.files[name] != new.files[name]:
            raise ExistsError(f"patch {here.patch_id[:12]}: it is here with another {name}", hint="rasura audit verify")


def _check_references(session: Session, record: PatchRecord) -> None:
    for noun, row, ref in (
        ("basis", BasisRow, record.basis),
        ("retain set", RetainSetRow, record.retain_set),
        ("key", KeyRow, record.key_id),
    ):
        if ref is not None and session.get(row, ref) is None:
            raise NotFoundError(f"patch {record.patch_id[:12]}: expected its {noun} {ref[:12]} here, got none")
