"""How long what was said in a case must be kept, and by when it is to be deleted, as the policy says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rasura.patches.checks.retention import DEFAULT, Retention
from rasura.patches.errors import ConflictError, InputError
from rasura.registry.evidence.proofs.choose_entries import EntryChoice, choose_entries

if TYPE_CHECKING:
    from rasura.registry._storage.records.case_record import CaseRecord
    from rasura.registry.registry import Registry

__all__ = ["RETENTION", "CaseRetention", "check_class", "list_due", "read_keeping", "require_over"]

RETENTION: Final = "retention"
"""Detail of the entry that opened a case: its class."""


@dataclass(frozen=True, slots=True)
class CaseRetention:
    """What holds for one case.

    Attributes:
        name: its class; "" where it has none.
        rule: what the policy says of that class; None: nothing.
        until: when it may be deleted; None: at once, or the case is open, or it is held.
        due: by when it is to be deleted; None: nothing asks for it, or the case is open, or it is held.
    """

    name: str
    rule: Retention | None
    until: datetime | None
    due: datetime | None


def check_class(registry: Registry, name: str) -> None:
    """Refuse a class that the policy in force does not have.

    Raises:
        InputError: naming those that it has.
    """
    known = [each.name for each in registry.policy().retention]
    if name not in known:
        said = ", ".join(known) or "none"
        raise InputError(f"retention class {name!r}: the policy has {said}", hint="rasura policy show")


def read_keeping(registry: Registry, record: CaseRecord) -> CaseRetention:
    """What holds for a case under the policy in force."""
    rules = {each.name: each for each in registry.policy().retention}
    opened = next(choose_entries(registry, EntryChoice(case=record.case_id, type="case.open"), limit=1), None)
    name = str(opened.details.get(RETENTION, "")) if opened is not None else ""
    rule = rules.get(name or DEFAULT)
    closed = record.closed_at
    if rule is None or closed is None or rule.held or record.held:
        return CaseRetention(name, rule, None, None)
    until, due = (None if span is None else closed + span for span in (rule.least, rule.most))
    return CaseRetention(name, rule, until, due)


def require_over(registry: Registry, record: CaseRecord) -> None:
    """Refuse to delete what the policy still keeps.

    Raises:
        ConflictError: its class is held, or its time is not over.
    """
    keeping = read_keeping(registry, record)
    if keeping.rule is not None and keeping.rule.held:
        raise ConflictError(
            f"case {record.case_id} is of the retention class {keeping.rule.name}, which the policy holds: nothing was "
            "deleted",
            hint="rasura policy show",
        )
    if keeping.until is not None and registry.now() < keeping.until:
        raise ConflictError(
            f"case {record.case_id} is kept until {keeping.until:%Y-%m-%d %H:%M} UTC, as the policy says: nothing was "
            "deleted",
            hint="rasura policy show",
        )


def list_due(registry: Registry) -> tuple[tuple[CaseRecord, datetime], ...]:
    """The cases whose personal data should have been deleted by now, and since when, the longest first."""
    now = registry.now()
    found = []
    if any(each.most is not None for each in registry.policy().retention):
        for record in registry.cases():
            if record.closed_at is None or record.forgotten_at is not None or record.held:
                continue
            due = read_keeping(registry, record).due
            if due is not None and due <= now:
                found.append((record, due))
    return tuple(sorted(found, key=lambda each: each[1]))
