"""The row of the policy in force."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.types import Digest
from rasura.registry._storage.choices import REGISTRY, PolicyRecord
from rasura.registry._storage.tables import PolicyRow
from rasura.registry.log.entry import Change, change_of

__all__ = ["every", "find", "save"]


def save(session: Session, record: PolicyRecord) -> Change | None:
    """Puts a policy in force; the one that is in force already changes nothing."""
    before = find(session)
    if before is not None and before.digest == record.digest:
        return None
    row = session.get(PolicyRow, record.scope) or PolicyRow(scope=record.scope)
    row.digest, row.set_at = record.digest, record.set_at
    session.add(row)
    return change_of(record, before)


def find(session: Session) -> PolicyRecord | None:
    """The policy in force, None where nobody has set one."""
    return next((record for record in every(session) if record.scope == REGISTRY), None)


def every(session: Session) -> tuple[PolicyRecord, ...]:
    """All that is there, which is one policy at most."""
    rows = session.scalars(select(PolicyRow).order_by(PolicyRow.scope))
    return tuple(PolicyRecord(row.scope, Digest(row.digest), row.set_at) for row in rows)
