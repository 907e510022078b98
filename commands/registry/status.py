"""`rasura status` and `rasura host`: where the registry stands."""

from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.command import Verbs, command, open_registry
from rasura.commands._shared.output import Result, line, many, short, table, verdict
from rasura.commands._shared.progress import progress
from rasura.commands._shared.views import format_place, format_set, name_concepts
from rasura.commands.proving.case_views import format_clock
from rasura.patches.errors import DriftError

if TYPE_CHECKING:
    from rasura.registry.standing.standing import Placed, Standing

_LOOK = click.option("--look", is_flag=True, help="Hash what is on every model, and compare.")


@click.group(cls=Verbs)
def host() -> None:
    """Models that something was applied to: list."""


@command(None, "status")
@_LOOK
def status(registry_at: str | None, *, look: bool) -> Result:
    """Say where the registry stands: what is in force on which model, and what is open.

    In force is what the registry wrote last; with --look, models are hashed, and exit code 6 says that one is
    something else.
    """
    from rasura.registry.cases.clock import list_standings
    from rasura.registry.cases.retention import list_due
    from rasura.registry.standing.standing import take_stock

    with open_registry(registry_at) as registry, progress() as tell:
        found = take_stock(registry, look=look, progress=tell)
        cases, due = list_standings(registry, closed=False), list_due(registry)
    drifted = any(placed.sight == "changed" for placed in found.placed)
    asked = [
        *(f"case {each.record.case_id}: {format_clock(each)}" for each in cases),
        *(
            f"case {each.case_id}: what was said in it was to be deleted by {by:%Y-%m-%d %H:%M}; rasura case forget "
            f"{each.case_id}"
            for each, by in due
        ),
    ]
    data = {
        **_standing_data(found),
        "cases": [{"case": each.record.case_id, "late": each.late} for each in cases],
        "to_forget": [each.case_id for each, _ in due],
    }
    return Result(data, lambda: _print(found, asked), exit_code=DriftError.exit_code if drifted else 0)


@command(host, "list")
@_LOOK
def list_hosts(registry_at: str | None, *, look: bool) -> Result:
    """List the models that something was applied to, and what is in force on each.

    Exit code 6 if --look finds one that is something else.
    """
    from rasura.registry.standing.standing import find_placed

    with open_registry(registry_at) as registry, progress() as tell:
        placed = find_placed(registry, look=look, progress=tell)
        names = name_concepts(registry, {patch_id for each in placed for patch_id in each.applied})
    drifted = any(each.sight == "changed" for each in placed)
    data = {"hosts": [_placed_data(each) for each in placed]}

    def text() -> None:
        _print_placed(placed, names) if placed else line("no models: nothing was ever applied")

    return Result(data, text, exit_code=DriftError.exit_code if drifted else 0)


def _print(found: "Standing", asked: "list[str]") -> None:
    names = {patch_id: ", ".join(record.concepts) for patch_id, record in found.patches.items()}
    line(f"registry {found.location}")
    bases = ", ".join(base.name for base in found.bases) or "none yet (rasura base add MODEL)"
    line(f"bases: {bases}")
    line(f"keys to sign with: {', '.join(found.keys) or 'none yet (rasura key new NAME)'}")
    line(f"patches: {_counted(found)}")
    when = f"{found.last.time:%Y-%m-%d %H:%M}"
    line(f"log: {many(found.entries, 'entry', 'entries')}, the last {found.last.action} by {found.last.actor}, {when}")
    if found.placed:
        line("")
        _print_placed(found.placed, names)
    if found.stacks:
        line("")
        rows = [(s.name, str(len(s.patches)), _where(found, s.name)) for s in found.stacks]
        table(("stack", "patches", "in force at"), rows)
    _print_open(found, names, asked)


def _counted(found: "Standing") -> str:
    counts = (
        (len(found.in_force), "in force"),
        (len(found.superseded), "superseded"),
        (len(found.retired), "retired"),
    )
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"{found.registered}" + (f" ({said})" if said else "")


def _where(found: "Standing", name: str) -> str:
    return ", ".join(format_place(p.host.location) for p in found.placed if name in p.stacks) or "nowhere"


def _print_placed(placed: "tuple[Placed, ...]", names: "dict[Any, str]") -> None:
    rows = []
    for each in placed:
        last = f"{each.last.time:%Y-%m-%d %H:%M}" if each.last else "-"
        rows.append((format_place(each.host.location), format_set(each.applied, names), each.sight, each.base, last))
    table(("model", "in force", "seen", "base", "last motion"), rows)
    for each in placed:
        for said in (*([each.said] if each.said else []), *each.uncovered):
            line(f"{format_place(each.host.location)}: {said}")


def _print_open(found: "Standing", names: "dict[Any, str]", asked: "list[str]") -> None:
    said = [*asked]
    for entry in found.unfinished:
        where = format_place(str(entry.details.get("location", "")))
        said.append(f"entry {entry.index}, {entry.action} of {where}, has no end; to end it: rasura doctor")
    said += [
        f"{format_place(p.host.location)}, where {format_set(p.applied, names)} is in force, is gone"
        for p in found.placed
        if p.sight == "gone" and p.applied
    ]
    if found.bisection is not None:
        where = format_place(found.bisection.location)
        said.append(f"a bisection of stack {found.bisection.stack} is going on at {where}")
    late = [p for p in found.superseded if p in found.in_force]
    for patch_id in late:
        newer = found.superseded[patch_id]
        concept = ", ".join(found.patches[patch_id].concepts)
        said.append(f"{short(patch_id)} ({concept}) is in force though {short(newer)} supersedes it")
    said += _unsigned(found)
    line("")
    for each in said:
        verdict(f"open: {each}", good=False)
    if not said:
        verdict("nothing is open", good=True)


def _unsigned(found: "Standing") -> list[str]:
    """What is in force, or in a stack, although no key that counts has signed it any more."""
    said = []
    for patch_id, key in found.uncounted.items():
        places = [format_place(placed.host.location) for placed in found.placed if patch_id in placed.applied]
        places += [f"stack {stack.name}" for stack in found.stacks if patch_id in stack.patches]
        if places:
            since = f"was revoked on {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "is not trusted"
            concept = ", ".join(found.patches[patch_id].concepts)
            signed = (
                f"{short(patch_id)} ({concept}), at {', '.join(places)}, is signed by key {key.name}, which {since}"
            )
            said.append(f"{signed}; to sign it anew: {_sign_anew(short(patch_id), found.resigners[patch_id])}")
    return said


def _sign_anew(patch: str, key: str) -> str:
    return f"rasura patch sign {patch} --key {key}" if key else f"rasura key new NAME, rasura patch sign {patch}"


def _standing_data(found: "Standing") -> dict[str, Any]:
    return {
        "location": found.location,
        "log": {"origin": found.origin, "size": found.entries, "last": found.last.time.isoformat()},
        "bases": [{"name": base.name, "digest": base.digest} for base in found.bases],
        "keys": list(found.keys),
        "patches": {
            "registered": found.registered,
            "in_force": sorted(found.in_force),
            "superseded": dict(found.superseded),
            "retired": sorted(found.retired),
            "uncounted": {patch_id: key.key_id for patch_id, key in sorted(found.uncounted.items())},
        },
        "hosts": [_placed_data(each) for each in found.placed],
        "stacks": [{"name": stack.name, "patches": len(stack.patches)} for stack in found.stacks],
        "unfinished": [entry.index for entry in found.unfinished],
        "bisection": None if found.bisection is None else found.bisection.stack,
    }


def _placed_data(placed: "Placed") -> dict[str, Any]:
    return {
        "id": placed.host.host_id,
        "location": placed.host.location,
        "base": placed.host.base,
        "applied": {patch_id: str(strength) for patch_id, strength in placed.applied.items()},
        "stacks": list(placed.stacks),
        "moved_at": placed.last.time.isoformat() if placed.last else None,
        "entry": placed.last.index if placed.last else None,
        "sight": placed.sight,
        "said": placed.said,
        "uncovered": list(placed.uncovered),
    }
