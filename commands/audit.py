"""`rasura audit`: the log and its proof."""

import json
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._command import Verbs, command, open_registry
from rasura.commands._output import Result, line, short, table

if TYPE_CHECKING:
    from rasura.registry._storage.records import EntryRecord


@click.group(cls=Verbs)
def audit() -> None:
    """The tamper-evident log: show and verify."""


@command(audit, "log")
@click.option("-n", "--limit", type=click.IntRange(1), help="At most so many entries.")
@click.option("--oldest", is_flag=True, help="The oldest first.")
def log(limit: int | None, oldest: bool, registry_at: str | None) -> Result:
    """Show the log, the newest entry first."""
    with open_registry(registry_at) as registry:
        entries = registry.entries(newest=not oldest, limit=limit)
    rows = [_row(entry) for entry in entries]
    headers = ("#", "time (utc)", "actor", "action", "outcome", "what", "reason")
    return Result({"entries": [_data(entry) for entry in entries]}, lambda: table(headers, rows))


@command(audit, "verify")
def verify(registry_at: str | None) -> Result:
    """Check the tree, its signature, and that replaying the log gives the tables."""
    from rasura.registry.log.verify import verify_log

    with open_registry(registry_at) as registry:
        report = verify_log(registry)
    data = {
        "size": report.size,
        "root": report.root.hex(),
        "origin": registry.origin,
        "key": report.vkey,
        "checkpoint": report.checkpoint,
        "first": report.first.isoformat(),
        "last": report.last.isoformat(),
        "unfinished": list(report.unfinished),
        "backwards": list(report.backwards),
    }

    def text() -> None:
        line(f"the log is whole: {report.size} entries, root {report.root.hex()[:16]}…, signed by {registry.origin}")
        if report.unfinished:
            line(f"begun and not ended: {', '.join(map(str, report.unfinished))}; the next motion of the model ends it")
        if report.backwards:
            line(f"earlier than the entry before: {', '.join(map(str, report.backwards))}; a clock was set back")

    return Result(data, text)


def _row(entry: "EntryRecord") -> tuple[str, ...]:
    what = " ".join(short(p) for p in entry.patches[:3]) + (" …" if len(entry.patches) > 3 else "")  # noqa: PLR2004
    outcome = entry.outcome + (f" ({entry.error})" if entry.error else "")
    time = f"{entry.time:%Y-%m-%d %H:%M:%S}"
    return str(entry.index), time, entry.actor, entry.action, outcome, what, entry.reason


def _data(entry: "EntryRecord") -> dict[str, Any]:
    details = json.loads(json.dumps(dict(entry.details)))
    return {
        "index": entry.index,
        "time": entry.time.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "outcome": entry.outcome,
        "error": entry.error,
        "reason": entry.reason,
        "patches": list(entry.patches),
        "base": entry.base,
        "host": entry.host,
        "before": entry.before,
        "after": entry.after,
        "details": details,
        "leaf_hash": entry.leaf_hash.hex(),
    }
