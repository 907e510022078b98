"""Cases and their clocks, for people and for machines."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rasura.registry._storage.records.case_record import CaseRecord
    from rasura.registry.cases.clock import CaseStanding
    from rasura.registry.cases.retention import CaseRetention

TIME: Final = "%Y-%m-%d %H:%M"


def format_clock(standing: "CaseStanding") -> str:
    """How the clock stands, in words."""
    left = standing.left
    if standing.acted is not None:
        took = f"in force after {format_span(standing.took or timedelta(0))}"
        return took if left is None else f"{took}, {'late' if standing.late else 'in time'}"
    if left is None:
        return "nothing in force"
    if standing.late:
        return f"LATE by {format_span(-left)}"
    return f"due in {format_span(left)}" if standing.record.closed_at is None else "closed, nothing in force"


def format_span(span: timedelta) -> str:
    """A span of time as people say it: `3 h 05 min`, `2 d 4 h`."""
    minutes = int(span.total_seconds()) // 60
    hours, days = minutes // 60, minutes // 1440
    if days >= 2:  # noqa: PLR2004
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60:02d} min" if hours else f"{minutes} min"


def format_keeping(keeping: "CaseRetention") -> str:
    """How long what was said is kept, in words."""
    assert keeping.rule is not None
    dates = [f"not deleted before {keeping.until:{TIME}} UTC"] if keeping.until else []
    dates += [f"to be deleted by {keeping.due:{TIME}} UTC"] if keeping.due else []
    said = ", ".join(dates) or ("nothing is deleted" if keeping.rule.held else f"{keeping.rule}, once it is closed")
    return f"{keeping.rule.name}: {said}"


def encode_keeping(keeping: "CaseRetention") -> dict[str, Any]:
    """How long what was said is kept, for machines."""
    times = {"kept_until": keeping.until, "delete_by": keeping.due}
    said = {name: None if time is None else time.isoformat() for name, time in times.items()}
    return {"retention": None if keeping.rule is None else keeping.rule.name, **said}


def encode_case(record: "CaseRecord") -> dict[str, Any]:
    """A case as the registry has it, for machines."""
    times = ("received_at", "due_at", "opened_at", "closed_at", "forgotten_at")
    said = {name: getattr(record, name) for name in times}
    return {
        "case": record.case_id,
        **{name: None if time is None else time.isoformat() for name, time in said.items()},
        "held": record.held,
        "commitments": dict(record.commitments),
    }


def encode_standing(found: "CaseStanding") -> dict[str, Any]:
    """A case and how its clock stands, for machines."""
    return {
        **encode_case(found.record),
        "state": found.state,
        "late": found.late,
        "seconds_left": None if found.left is None else int(found.left.total_seconds()),
        "acted_at": None if found.acted is None else found.acted.time.isoformat(),
        "acted_entry": None if found.acted is None else found.acted.index,
    }
