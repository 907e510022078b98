"""Rows of patches: added, found by what people type, and read, in a transaction that somebody else began."""

import unicodedata
from collections.abc import Collection, Sequence
from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from rasura.patches.errors import ExistsError, NotFoundError
from rasura.patches.format.file_names import SIGNATURE
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.database.lookup import begins, expand_id
from rasura.registry._storage.database.tables import (
    BasisRow,
    ConceptRow,
    FileRow,
    KeyRow,
    PatchRow,
    RetainSetRow,
    SignatureRow,
)
from rasura.registry._storage.records.choices import RETIRE, UNRETIRE
from rasura.registry._storage.records.records import PatchOutline, PatchRecord
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.entries.stored_entries import every as every_entry
from rasura.registry.log.told.checks import check_absent, check_told

__all__ = [
    "every",
    "find_beginning",
    "find_named",
    "find_not_signed_by",
    "find_retired",
    "insert",
    "load",
    "load_some",
    "outline_some",
    "read_page",
    "resolve",
]

_HINT = "rasura patch list"
_AT_ONCE = 500

_Row = TypeVar("_Row", ConceptRow, FileRow)


def insert(session: Session, record: PatchRecord) -> RowChange | None:
    """Adds a patch. Its identity covers its content, so the same patch from elsewhere, or signed anew, changes nothing.

    Raises:
        ExistsError: the identity is here with other files, which no honest manifest can give.
        NotFoundError: its basis, retain set or key is not in this registry.
    """
    if session.get(PatchRow, record.patch_id) is not None:
        _check_same(load(session, record.patch_id), record)
        return None
    check_absent(session, "patch", (record.patch_id,))
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
    return encode_change(record)


def find_named(session: Session, concept: str) -> tuple[PatchId, ...]:
    """Patches that erase this concept, however it is spelt; the oldest first."""
    wanted = _spell(concept)
    query = select(ConceptRow).join(PatchRow, PatchRow.patch_id == ConceptRow.patch_id)
    rows = session.scalars(query.order_by(PatchRow.added_at, PatchRow.patch_id))
    return tuple(dict.fromkeys(PatchId(row.patch_id) for row in rows if _spell(row.concept) == wanted))


def find_retired(session: Session) -> frozenset[PatchId]:
    """Patches that were retired and not taken back into use, as the log has it."""
    found: set[PatchId] = set()
    asked = [EntryFilter(action=action, outcome="success") for action in (RETIRE, UNRETIRE)]
    told = [entry for each in asked for entry in every_entry(session, each, newest=False, limit=None, after=None)]
    for entry in sorted(told, key=lambda entry: entry.index):
        found = found | set(entry.patches) if entry.action == RETIRE else found - set(entry.patches)
    return frozenset(found)


def _spell(concept: str) -> str:
    """One spelling for comparing, as `rasura.patches.prompts.concept_prompts.normal` has it, which needs more."""
    return " ".join(unicodedata.normalize("NFC", concept).casefold().split())


def find_beginning(session: Session, digits: str) -> list[PatchId]:
    """Patches whose identifiers begin with these hexadecimal digits."""
    query = select(PatchRow.patch_id).where(begins(PatchRow.patch_id, digits.lower())).order_by(PatchRow.patch_id)
    return [PatchId(patch_id) for patch_id in session.scalars(query)]


def resolve(session: Session, prefix: str) -> PatchId:
    """The identifier that an abbreviation of at least four digits stands for.

    Raises:
        NotFoundError, AmbiguousIdError: no such patch, or several.
    """
    return PatchId(expand_id(session, PatchRow.patch_id, prefix, "patch", _HINT, names=ConceptRow.concept))


def load(session: Session, ref: str) -> PatchRecord:
    """The patch with this identifier or abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such patch, or several.
    """
    return _records(session, select(PatchRow).where(PatchRow.patch_id == resolve(session, ref)))[0]


def load_some(session: Session, patch_ids: Sequence[PatchId]) -> tuple[PatchRecord, ...]:
    """Those of these patches that are here, the oldest first."""
    found: list[PatchRecord] = []
    for start in range(0, len(patch_ids), _AT_ONCE):
        found += _records(session, select(PatchRow).where(PatchRow.patch_id.in_(patch_ids[start : start + _AT_ONCE])))
    return tuple(sorted(found, key=lambda record: (record.added_at, record.patch_id)))


def outline_some(session: Session, patch_ids: Sequence[PatchId]) -> dict[PatchId, PatchOutline]:
    """Of those of these patches that are here: when they came, and of which base they are."""
    found: dict[PatchId, PatchOutline] = {}
    for start in range(0, len(patch_ids), _AT_ONCE):
        query = select(PatchRow.patch_id, PatchRow.base, PatchRow.added_at)
        rows = session.execute(query.where(PatchRow.patch_id.in_(patch_ids[start : start + _AT_ONCE])))
        found |= {PatchId(each): PatchOutline(PatchId(each), Digest(base), added_at) for each, base, added_at in rows}
    return found


def find_not_signed_by(session: Session, keys: Collection[KeyId]) -> tuple[PatchRecord, ...]:
    """Signed patches that none of these keys has signed, the oldest first."""
    signed = select(SignatureRow.patch_id).where(SignatureRow.key_id.in_(keys))
    query = select(PatchRow).where(PatchRow.key_id.is_not(None), PatchRow.key_id.not_in(keys))
    query = query.where(PatchRow.patch_id.not_in(signed))
    return _records(session, query.order_by(PatchRow.added_at, PatchRow.patch_id))


def every(session: Session, *, concept: str | None = None, base: Digest | None = None) -> tuple[PatchRecord, ...]:
    """All patches, the oldest first, or those that erase `concept` or were computed on `base`."""
    query = select(PatchRow).order_by(PatchRow.added_at, PatchRow.patch_id)
    if base is not None:
        query = query.where(PatchRow.base == base)
    if concept is not None:
        query = query.where(PatchRow.patch_id.in_(select(ConceptRow.patch_id).where(ConceptRow.concept == concept)))
    return _records(session, query)


def read_page(
    session: Session, limit: int, *, before: PatchId | None = None, base: Digest | None = None
) -> tuple[PatchRecord, ...]:
    """At most so many patches, the newest first, and only those older than `before`.

    Raises:
        NotFoundError: there is no such patch to go on from.
    """
    query = select(PatchRow.patch_id).order_by(PatchRow.added_at.desc(), PatchRow.patch_id.desc()).limit(limit)
    if base is not None:
        query = query.where(PatchRow.base == base)
    if before is not None:
        last = load(session, before)
        query = query.where(
            (PatchRow.added_at < last.added_at)
            | ((PatchRow.added_at == last.added_at) & (PatchRow.patch_id < last.patch_id))
        )
    ids = session.scalars(query).all()
    found = {each.patch_id: each for each in _records(session, select(PatchRow).where(PatchRow.patch_id.in_(ids)))}
    return tuple(found[PatchId(each)] for each in ids)


def _records(session: Session, query: Select[PatchRow]) -> tuple[PatchRecord, ...]:
    """Three queries, however many patches."""
    rows = session.scalars(query).all()
    inside = query.with_only_columns(PatchRow.patch_id).order_by(None)
    concepts = _grouped(
        session.scalars(select(ConceptRow).where(ConceptRow.patch_id.in_(inside)).order_by(ConceptRow.position)).all()
    )
    files = _grouped(session.scalars(select(FileRow).where(FileRow.patch_id.in_(inside)).order_by(FileRow.name)).all())
    found = tuple(_record(row, concepts.get(row.patch_id, []), files.get(row.patch_id, [])) for row in rows)
    for record in found:
        check_told(session, record)
    return found


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
    for name in here.files.keys() & new.files.keys() - {SIGNATURE}:
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
