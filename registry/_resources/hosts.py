"""Hosts and the stacks applied to them."""

from dataclasses import replace

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from rasura.patches.errors import ExistsError, NotFoundError
from rasura.patches.types import Digest, PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import require_row
from rasura.registry._storage.database.tables import AppliedRow, BaseRow, HostRow, PatchRow
from rasura.registry._storage.records.records import Draft, EntryRecord, HostRecord
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_absent, check_kind, check_told

__all__ = ["Hosts", "every"]

_HINT = "rasura patch status"


class Hosts(Opened):
    """What a registry does with hosts."""

    def hosts(self, *, patch: PatchId | None = None) -> tuple[HostRecord, ...]:
        """All hosts by location, or those that `patch` is applied to."""
        with self.reading() as session:
            return every(session, patch=patch)

    def host(self, ref: str) -> HostRecord:
        """The host with this identifier or location.

        Raises:
            NotFoundError: no such host.
        """
        with self.reading() as session:
            return load(session, ref)

    def find_host(self, ref: str) -> HostRecord | None:
        """The host with this identifier or location, None where there is none."""
        with self.reading() as session:
            return find(session, ref)

    def set_host(self, record: HostRecord, entry: Draft) -> EntryRecord:
        """Adds a host, or replaces what is known of it, its stack included. The entry is written even without a change.

        Raises:
            ExistsError: another host is at this location.
            NotFoundError: its base, or a patch of its stack, is not in this registry.
        """
        draft = replace(entry, host=entry.host or record.host_id, base=entry.base or record.base)
        return self._journal.append(draft, lambda session: [save(session, record)])


def save(session: Session, record: HostRecord) -> RowChange | None:
    """Adds a host or replaces what is known of it, its stack included.

    Raises:
        ExistsError: another host is at this location.
        NotFoundError: its base, or a patch of its stack, is not in this registry.
    """
    before = find(session, record.host_id)
    if before == record:
        return None
    there = session.scalar(select(HostRow.host_id).where(HostRow.location == record.location))
    if there not in (None, record.host_id):
        raise ExistsError(f"host: another one ({there}) is at {record.location}", hint=_HINT)
    if session.get(BaseRow, record.base) is None:
        raise NotFoundError(f"host: expected its base {record.base[:12]} here, got none", hint="rasura base add")
    missing = sorted(set(record.applied) - set(session.scalars(select(PatchRow.patch_id))))
    if missing:
        raise NotFoundError(f"host: expected patch {missing[0][:12]} here, got none", hint="rasura patch list")
    row = session.get(HostRow, record.host_id) or HostRow(host_id=record.host_id)
    row.location, row.base, row.state = record.location, record.base, record.state
    row.updated_at = record.updated_at
    session.add(row)
    session.flush()  # the stack refers to it
    if before is None or before.applied != record.applied:
        session.execute(delete(AppliedRow).where(AppliedRow.host_id == record.host_id))
        session.expire_all()
        session.add_all(
            AppliedRow(host_id=record.host_id, patch_id=patch_id, strength=strength)
            for patch_id, strength in record.applied.items()
        )
    return encode_change(record, before)


def find(session: Session, ref: str) -> HostRecord | None:
    """The host with this identifier or location."""
    records = _records(session, select(HostRow).where((HostRow.host_id == ref) | (HostRow.location == ref)))
    check_absent(session, "host", () if records else (ref,))
    return records[0] if records else None


def load(session: Session, ref: str) -> HostRecord:
    """The host with this identifier or location.

    Raises:
        NotFoundError: no such host.
    """
    record: HostRecord = require_row(find(session, ref), "host", ref, _HINT)
    return record


def every(session: Session, *, patch: PatchId | None = None) -> tuple[HostRecord, ...]:
    """All hosts by location, or those that `patch` is applied to."""
    query = select(HostRow).order_by(HostRow.location)
    if patch is not None:
        query = query.where(HostRow.host_id.in_(select(AppliedRow.host_id).where(AppliedRow.patch_id == patch)))
    found = _records(session, query)
    if patch is None:
        check_kind(session, "host", found)
    return found


def _records(session: Session, query: Select[HostRow]) -> tuple[HostRecord, ...]:
    rows = session.scalars(query).all()
    inside = query.with_only_columns(HostRow.host_id).order_by(None)
    stacks: dict[str, dict[PatchId, int]] = {row.host_id: {} for row in rows}
    for applied in session.scalars(select(AppliedRow).where(AppliedRow.host_id.in_(inside))):
        stacks[applied.host_id][PatchId(applied.patch_id)] = applied.strength
    found = tuple(
        HostRecord(row.host_id, row.location, Digest(row.base), stacks[row.host_id], Digest(row.state), row.updated_at)
        for row in rows
    )
    for record in found:
        check_told(session, record)
    return found
