"""Stacks: named sets of patches with strengths."""

from dataclasses import replace

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from rasura.patches.errors import ConflictError, ExistsError, NotFoundError
from rasura.patches.types import Digest, PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import require_row
from rasura.registry._storage.database.tables import BaseRow, PatchRow, StackPatchRow, StackRow
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change, removal_of
from rasura.registry.log.told.checks import check_absent, check_kind, check_told

__all__ = ["Stacks", "every"]

_HINT = "rasura stack list"


class Stacks(Opened):
    """What a registry does with  What may be in one is the business of `rasura.registry.stacks.edit`."""

    def stacks(self, *, patch: PatchId | None = None) -> tuple[StackRecord, ...]:
        """All stacks by name, or those that `patch` is in."""
        with self.reading() as session:
            return every(session, patch=patch)

    def stack(self, name: str) -> StackRecord:
        """The stack of this name.

        Raises:
            NotFoundError: no such stack.
        """
        with self.reading() as session:
            return load(session, name)

    def add_stack(self, record: StackRecord, entry: Draft) -> None:
        """Adds a stack. The entry names its patches where it names nothing.

        Raises:
            ExistsError: there is one of this name.
            NotFoundError: its base, or a patch of it, is not in this registry.
        """
        self._journal.change(_named(entry, record, record), lambda session: [insert(session, record)])

    def set_stack(self, before: StackRecord, after: StackRecord, entry: Draft) -> bool:
        """Replaces the patches of a stack; False where they are the same. The entry names those that moved.

        Raises:
            ConflictError: the stack is no longer what `before` says.
            NotFoundError: it is gone, or a patch of it is not in this registry.
        """
        draft = _named(entry, before, after)
        return self._journal.change(draft, lambda session: [update(session, before, after)]) is not None

    def remove_stack(self, before: StackRecord, entry: Draft) -> None:
        """Removes a stack; its patches and the models that have them stay as they are.

        Raises:
            ConflictError: the stack is no longer what `before` says.
            NotFoundError: it is gone.
        """
        self._journal.change(_named(entry, before, before), lambda session: [remove(session, before)])


def _named(entry: Draft, before: StackRecord, after: StackRecord) -> Draft:
    """The entry with the stack's name and base, and with all patches of one record or those that moved between two."""
    moved = (
        {*after.patches} if before is after else {p for p, _ in {*before.patches.items()} ^ {*after.patches.items()}}
    )
    return replace(
        entry,
        patches=entry.patches or tuple(sorted(moved)),
        base=entry.base or after.base,
        details={**entry.details, "stack": after.name},
    )


def insert(session: Session, record: StackRecord) -> RowChange:
    """Adds a stack.

    Raises:
        ExistsError: there is one of this name.
        NotFoundError: its base, or a patch of it, is not in this registry.
    """
    if session.get(StackRow, record.name) is not None:
        raise ExistsError(f"stack: there is one called {record.name}", hint=f"rasura stack show {record.name}")
    check_absent(session, "stack", (record.name,))
    _check_references(session, record)
    row = StackRow(name=record.name, base=record.base, created_at=record.created_at, updated_at=record.updated_at)
    session.add(row)
    session.flush()  # the patches refer to it
    _add_patches(session, record)
    return encode_change(record)


def update(session: Session, before: StackRecord, after: StackRecord) -> RowChange | None:
    """Replaces what `before` said; the same patches change nothing.

    Raises:
        ConflictError: the stack is no longer what the caller saw.
        NotFoundError: it is gone, or a patch of it is not in this registry.
    """
    _check_unmoved(session, before)
    if after.patches == before.patches:
        return None
    _check_references(session, after)
    session.get_one(StackRow, after.name).updated_at = after.updated_at
    session.execute(delete(StackPatchRow).where(StackPatchRow.stack == after.name))
    session.flush()
    session.expire_all()
    _add_patches(session, after)
    return encode_change(after, before)


def remove(session: Session, before: StackRecord) -> RowChange:
    """Removes a stack; its patches stay where they are.

    Raises:
        ConflictError: the stack is no longer what the caller saw.
        NotFoundError: it is gone.
    """
    _check_unmoved(session, before)
    session.execute(delete(StackPatchRow).where(StackPatchRow.stack == before.name))
    session.execute(delete(StackRow).where(StackRow.name == before.name))
    return removal_of(before)


def find(session: Session, name: str) -> StackRecord | None:
    """The stack of this name, None where there is none."""
    records = _records(session, select(StackRow).where(StackRow.name == name))
    check_absent(session, "stack", () if records else (name,))
    return records[0] if records else None


def load(session: Session, name: str) -> StackRecord:
    """The stack of this name.

    Raises:
        NotFoundError: no such stack.
    """
    row = find(session, name)
    names = () if row else session.scalars(select(StackRow.name)).all()
    record: StackRecord = require_row(row, "stack", name, _HINT, names)
    return record


def every(session: Session, *, patch: PatchId | None = None) -> tuple[StackRecord, ...]:
    """All stacks by name, or those that `patch` is in."""
    query = select(StackRow).order_by(StackRow.name)
    if patch is not None:
        query = query.where(StackRow.name.in_(select(StackPatchRow.stack).where(StackPatchRow.patch_id == patch)))
    found = _records(session, query)
    if patch is None:
        check_kind(session, "stack", found)
    return found


def _records(session: Session, query: Select[StackRow]) -> tuple[StackRecord, ...]:
    """Two queries, however many stacks."""
    rows = session.scalars(query).all()
    inside = query.with_only_columns(StackRow.name).order_by(None)
    patches: dict[str, dict[PatchId, int]] = {row.name: {} for row in rows}
    listed = select(StackPatchRow).where(StackPatchRow.stack.in_(inside)).order_by(StackPatchRow.patch_id)
    for member in session.scalars(listed):
        patches[member.stack][PatchId(member.patch_id)] = member.strength
    found = tuple(
        StackRecord(row.name, Digest(row.base), patches[row.name], row.created_at, row.updated_at) for row in rows
    )
    for record in found:
        check_told(session, record)
    return found


def _add_patches(session: Session, record: StackRecord) -> None:
    session.add_all(
        StackPatchRow(stack=record.name, patch_id=patch_id, strength=strength)
        for patch_id, strength in record.patches.items()
    )


def _check_unmoved(session: Session, before: StackRecord) -> None:
    if load(session, before.name) != before:
        raise ConflictError(
            f"stack {before.name}: somebody changed it at the same time", hint=f"rasura stack show {before.name}"
        )


def _check_references(session: Session, record: StackRecord) -> None:
    if session.get(BaseRow, record.base) is None:
        raise NotFoundError(f"stack: expected its base {record.base[:12]} here, got none", hint="rasura base add")
    missing = sorted(set(record.patches) - set(session.scalars(select(PatchRow.patch_id))))
    if missing:
        raise NotFoundError(f"stack: expected patch {missing[0][:12]} here, got none", hint="rasura patch list")
