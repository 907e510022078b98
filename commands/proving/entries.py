"""Entries of the log: which are meant, and what is shown of each."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rasura.commands._shared.output import short

if TYPE_CHECKING:
    from datetime import datetime

    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.evidence.proofs.choose_entries import EntryChoice
    from rasura.registry.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])
HEADERS: Final = ("#", "time (utc)", "actor", "action", "outcome", "what", "reason")
_CHOICE = (
    click.option(
        "--since", metavar="TIME", help="Not earlier: 2026-11-29, 2026-11-29T14:00Z, or 3d (ago; m, h, d, w)."
    ),
    click.option("--until", metavar="TIME", help="Earlier than this."),
    click.option("--by", "actor", metavar="NAME", help="By this actor."),
    click.option("--patch", metavar="ID", help="That name this patch."),
    click.option("--concept", metavar="TEXT", help="That name a patch which erases this concept."),
    click.option("--model", metavar="DIR|UUID", help="About this model."),
    click.option("--case", metavar="ID", help="That belong to this case."),
    click.option("--type", "type_", metavar="TYPE", help="Of this type, as patch.apply, or of a noun, as patch."),
)


def add_choice(function: F) -> F:
    """Give a command the options that choose entries."""
    for option in reversed(_CHOICE):
        function = option(function)
    return function


def read_choice(registry: "Registry", which: Mapping[str, str | None]) -> "EntryChoice":
    """What the options of `add_choice` choose.

    Raises:
        InputError: no time.
        NotFoundError: no such patch.
    """
    from rasura.registry.evidence.proofs.choose_entries import EntryChoice, parse_moment

    def moment(name: str) -> "datetime | None":
        text = which[name]
        return None if text is None else parse_moment(text, registry.now())

    patch = which["patch"]
    return EntryChoice(
        since=moment("since"),
        until=moment("until"),
        actor=which["actor"],
        patch=None if patch is None else registry.resolve_patch(patch),
        concept=which["concept"],
        model=which["model"],
        type=which["type_"],
        case=which["case"],
    )


def list_fields(entry: "EntryRecord") -> Iterator[tuple[str, str]]:
    """What an entry says, field by field, what is absent left out."""
    yield "entry", str(entry.index)
    yield "time", f"{entry.time:%Y-%m-%d %H:%M:%S} UTC"
    yield "actor", f"{entry.actor} ({'claimed' if entry.actor_key is None else f'signed with key {entry.actor_key}'})"
    yield "type", entry.action
    yield "outcome", entry.outcome + (f" ({entry.error})" if entry.error else "")
    for name in ("reason", "base", "host", "before", "after", "closes"):
        if getattr(entry, name) not in {None, ""}:
            yield name, str(getattr(entry, name))
    for patch in entry.patches:
        yield "patch", patch
    yield "leaf", entry.leaf_hash.hex()


def format_entry(entry: "EntryRecord") -> tuple[str, ...]:
    """An entry's cells, below `HEADERS`."""
    what = " ".join(short(p) for p in entry.patches[:3]) + (" …" if len(entry.patches) > 3 else "")  # noqa: PLR2004
    outcome = entry.outcome + (f" ({entry.error})" if entry.error else "")
    time = f"{entry.time:%Y-%m-%d %H:%M:%S}"
    actor = f"{entry.actor} ({'claimed' if entry.actor_key is None else short(entry.actor_key)})"
    return str(entry.index), time, actor, entry.action, outcome, what, entry.reason


def encode_entry(entry: "EntryRecord") -> dict[str, Any]:
    """An entry for machines."""
    details = json.loads(json.dumps(dict(entry.details)))
    return {
        "index": entry.index,
        "time": entry.time.isoformat(),
        "actor": entry.actor,
        "actor_key": entry.actor_key,
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
