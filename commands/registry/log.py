"""`rasura log`: what happened lately, a line an event."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.command import command, open_registry
from rasura.commands._shared.output import Result, clip, line, short, table
from rasura.commands._shared.views import format_place

if TYPE_CHECKING:
    from rasura.registry.standing.recent import RecentEvent

_NAMED: Final = 3  # concepts or patches that a line of the log names
_DONE: Final = {
    "registry.create": "made the registry",
    "registry.upgrade": "upgraded the registry",
    "key.add": "made a key",
    "key.trust": "trusted a key",
    "key.revoke": "revoked a key",
    "base.add": "added a base",
    "patch.erase": "erased",
    "patch.add": "registered",
    "patch.pull": "pulled",
    "patch.push": "pushed",
    "patch.sign": "signed",
    "patch.rebase": "solved anew",
    "patch.join": "joined",
    "patch.retarget": "carried to another base",
    "patch.apply": "applied",
    "patch.revert": "reverted",
    "patch.switch": "switched",
    "patch.retire": "retired",
    "patch.unretire": "took back into use",
    "stack.create": "made stack",
    "stack.add": "added",
    "stack.remove": "removed",
    "stack.update": "updated",
    "stack.set": "moved",
    "stack.delete": "deleted stack",
    "policy.set": "set the policy",
    "trust.set": "set the trust policy",
    "patch.approve": "approved",
    "plan.approve": "approved a plan of",
    "evaluation.add": "recorded an evaluation",
    "takedown.cover": "is covered by",
    "takedown.uncover": "is covered no more by",
    "host.move": "found again",
    "doctor.repair": "repaired",
    "blob.gc": "collected garbage",
}
"""What an action is called in a line of the log; others go by their own name."""


@command(None, "log")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many lines.")
@click.option("--model", type=click.Path(path_type=Path), metavar="MODEL", help="Only what concerns this model.")
@click.option("--stack", metavar="NAME", help="Only what concerns this stack.")
@click.option("--patch", "patch_ref", metavar="ID", help="Only what concerns this patch.")
def log(limit: int, model: Path | None, stack: str | None, patch_ref: str | None, registry_at: str | None) -> Result:
    """Say what happened lately, a line an event, the newest first.

    Every entry, with its digests: rasura audit log.
    """
    from rasura.registry.log.entries.stored_entries import EntryFilter
    from rasura.registry.standing.models import find_host
    from rasura.registry.standing.recent import list_recent

    with open_registry(registry_at) as registry:
        which = EntryFilter(
            patch=None if patch_ref is None else registry.resolve_patch(patch_ref),
            host=None if model is None else find_host(registry, model).host_id,
        )
        told = list_recent(registry, which, limit=limit, stack=stack)
    rows = [_log_row(each) for each in told]
    headers = ("#", "when", "who", "what", "why")

    def text() -> None:
        table(headers, rows) if rows else line("nothing yet")

    return Result({"events": [_event_data(each) for each in told]}, text)


def _log_row(told: "RecentEvent") -> tuple[str, ...]:
    from rasura.registry.standing.recent import find_ticket

    entry = told.entry
    verb = _DONE.get(entry.action, entry.action)
    if entry.outcome in {"refused", "failed"}:
        verb = f"{entry.outcome} ({entry.error}): {entry.action}"
    if told.open:
        verb = f"begun, no end: {entry.action}"
    said = [verb]
    concepts = told.concepts or tuple(short(p) for p in entry.patches)
    if concepts:
        more = len(concepts) - _NAMED
        said.append(", ".join(concepts[:_NAMED]) + (f" and {more} more" if more > 0 else ""))
    if told.where:
        said.append(f"@ {format_place(told.where)}")
    if "undoes" in entry.details:
        said.append(f"(undoes {entry.details['undoes']})")
    why = clip(find_ticket(entry), 40)
    return str(entry.index), f"{entry.time:%m-%d %H:%M}", entry.actor, " ".join(said), why


def _event_data(told: "RecentEvent") -> dict[str, Any]:
    entry = told.entry
    return {
        "index": entry.index,
        "time": entry.time.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "outcome": entry.outcome,
        "open": told.open,
        "error": entry.error,
        "reason": entry.reason,
        "patches": list(entry.patches),
        "concepts": list(told.concepts),
        "where": told.where,
    }
