"""`rasura case`: requests with their clocks, and what was said in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.documents import write_lines
from rasura.commands._shared.output import Result, fields, line, many, table
from rasura.commands.proving.case_views import (
    TIME,
    encode_case,
    encode_keeping,
    encode_standing,
    format_clock,
    format_keeping,
)

F = TypeVar("F", bound=Callable[..., Any])

_PATH: Final = click.Path(path_type=Path)
_ID: Final = click.argument("case_id", metavar="ID")


@click.group(cls=Verbs)
def case() -> None:
    """Requests with their clocks: open, list, show, close, hold, forget."""


@command(case, "open", mutating=True)
@click.argument("number", metavar="ID")
@click.option("--received", metavar="TIME", help="When it came: 2026-11-29T14:00Z, or 3h (ago) [default: now].")
@click.option("--deadline", metavar="48h|TIME", help="Until when something must be done; 48h counts from --received.")
@click.option("--requester", default="", metavar="TEXT", help="Who asked. Not in the log; can be deleted.")
@click.option("--text", type=_PATH, metavar="FILE", help="What they wrote. Not in the log; can be deleted.")
@click.option("--retention", default="", metavar="CLASS", help="How long that is kept: a class of the policy.")
def open_(
    *,
    number: str,
    received: str | None,
    deadline: str | None,
    requester: str,
    text: Path | None,
    retention: str,
    order: Order,
) -> Result:
    """Open the case of a request; commands with --case ID, and takedown files with ID as a ticket, belong to it.

    ID and --reason stand in the log for ever: a ticket's number, not a name.
    """
    from rasura.registry.cases.clock import parse_deadline, parse_received
    from rasura.registry.cases.handle_case import open_case, read_text

    with order.open() as registry:
        now = registry.now()
        came = parse_received(received, now) if received else now
        record = open_case(
            registry,
            number,
            order.actor,
            received=came,
            due=parse_deadline(deadline, came) if deadline else None,
            requester=requester,
            text=read_text(text) if text else b"",
            retention=retention,
        )
    due = "no deadline" if record.due_at is None else f"due {record.due_at:{TIME}} UTC"
    return Result(encode_case(record), lambda: line(f"opened case {number}: {due}"), changed=True)


@command(case, "list")
@click.option("--all", "closed", is_flag=True, help="Closed ones, too.")
def list_(closed: bool, registry_at: str | None) -> Result:
    """List the open cases: what is due first, and what is late."""
    from rasura.registry.cases.clock import list_standings

    with open_registry(registry_at) as registry:
        found = list_standings(registry, closed=closed)
    rows = [
        (
            each.record.case_id,
            each.state,
            f"{each.record.received_at:{TIME}}",
            "-" if each.record.due_at is None else f"{each.record.due_at:{TIME}}",
            format_clock(each),
            "-" if each.acted is None else f"{each.acted.time:{TIME}}",
            "yes" if each.record.held else "-",
        )
        for each in found
    ]

    def text() -> None:
        if rows:
            table(("case", "state", "received", "due", "clock", "in force since", "hold"), rows)
        else:
            line("no cases" if closed else "no open cases")

    return Result({"cases": [encode_standing(each) for each in found]}, text)


@command(case, "show")
@_ID
def show(case_id: str, registry_at: str | None) -> Result:
    """Show a case: its clock, what was said, and every entry that belongs to it."""
    from rasura.registry.cases.clock import read_standing
    from rasura.registry.cases.handle_case import PICTURE, read_said
    from rasura.registry.cases.retention import read_keeping

    with open_registry(registry_at) as registry:
        found = read_standing(registry, case_id)
        said = read_said(registry, found.record)
        keeping = read_keeping(registry, found.record)
    record = found.record
    texts = {name: data.decode("utf-8", "replace") for name, data in said.items() if not name.startswith(PICTURE)}

    def text() -> None:
        fields(
            [
                ("case", record.case_id),
                ("state", found.state + (", under a legal hold" if record.held else "")),
                ("received", f"{record.received_at:{TIME}} UTC"),
                ("due", "-" if record.due_at is None else f"{record.due_at:{TIME}} UTC"),
                ("clock", format_clock(found)),
                *([("kept", format_keeping(keeping))] if keeping.rule is not None else []),
            ]
        )
        if record.forgotten_at is not None:
            line(f"its personal data was deleted at {record.forgotten_at:{TIME}} UTC; the log keeps commitments to it")
        for name, value in texts.items():
            line(f"{name}: {value.rstrip()}")
        if len(said) > len(texts):
            line(many(len(said) - len(texts), "picture"))
        line("")
        rows = [(str(e.index), f"{e.time:{TIME}}", e.actor, e.action, e.outcome, e.reason) for e in found.entries]
        table(("#", "time (utc)", "actor", "action", "outcome", "reason"), rows)

    data = {**encode_standing(found), "said": texts, "pictures": len(said) - len(texts), **encode_keeping(keeping)}
    return Result({**data, "entries": [entry.index for entry in found.entries]}, text)


@command(case, "add", mutating=True)
@_ID
@click.option(
    "--picture", type=_PATH, required=True, metavar="FILE", help="PNG or JPEG. Not in the log; can be deleted."
)
def add(case_id: str, picture: Path, order: Order) -> Result:
    """Keep a picture with a case: what somebody sent, or what a model drew."""
    from rasura.registry.cases.handle_case import keep_picture, read_text

    with order.open() as registry:
        name = keep_picture(registry, case_id, read_text(picture), order.actor)
    return Result(
        {"case": case_id, "item": name},
        lambda: line(f"kept {picture.name} with case {case_id} as {name}"),
        changed=True,
    )


@command(case, "close", mutating=True)
@_ID
def close(case_id: str, order: Order) -> Result:
    """Close a case; --reason says how it ended. Nothing more can belong to it."""
    from rasura.registry.cases.handle_case import close_case

    with order.open() as registry:
        record = close_case(registry, case_id, order.actor)
    return Result(encode_case(record), lambda: line(f"closed case {case_id}"), changed=True)


@command(case, "reopen", mutating=True)
@_ID
def reopen(case_id: str, order: Order) -> Result:
    """Open a closed case again; its clock is the one that it had."""
    from rasura.registry.cases.handle_case import reopen_case

    with order.open() as registry:
        record = reopen_case(registry, case_id, order.actor)
    return Result(encode_case(record), lambda: line(f"case {case_id} is open again"), changed=True)


@command(case, "hold", mutating=True)
@_ID
def hold(case_id: str, order: Order) -> Result:
    """Put a legal hold on a case: its personal data cannot be deleted. --reason says on whose order."""
    return _hold(case_id, order, held=True)


@command(case, "release", mutating=True)
@_ID
def release(case_id: str, order: Order) -> Result:
    """Take the legal hold off a case. --reason says on whose order."""
    return _hold(case_id, order, held=False)


@command(case, "forget", mutating=True)
@_ID
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Write the proof of the entry that says so.")
@DRY
def forget(case_id: str, output: Path | None, order: Order, *, dry_run: bool) -> Result:
    """Delete who asked, what they wrote and the pictures of a closed case; the log stays, and is verified.

    Copies in backups are yours to delete.
    """
    from rasura.registry.cases.handle_case import foresee_forgetting, forget_case
    from rasura.registry.evidence.proofs.take_out import prove_entry

    with order.open() as registry:
        if dry_run:
            record = foresee_forgetting(registry, case_id)
            items = [] if record.forgotten_at is not None else sorted(record.commitments)
            said = f"would delete of case {case_id}: {', '.join(items) or 'nothing, because it holds nothing'}"
            return Result({**encode_case(record), "would_delete": items}, lambda: line(said))
        found = forget_case(registry, case_id, order.actor)
        if output is not None:
            write_lines(output, [prove_entry(registry, found.index)])
    log = found.log
    what = ", ".join(found.items) or "nothing, because it held nothing"
    data = {
        **encode_case(found.record),
        "deleted": list(found.items),
        "entry": found.index,
        "size": log.size,
        "root": log.root.hex(),
        "file": str(output) if output else None,
    }

    def text() -> None:
        line(f"deleted of case {case_id}: {what}; entry {found.index} says so")
        line(f"the log verifies: {log.size} entries, root {log.root.hex()[:16]}…")
        if output is not None:
            line(f"wrote {output}: rasura audit verify {output} --vkey {log.vkey}")

    return Result(data, text, changed=True)


def _hold(case_id: str, order: Order, *, held: bool) -> Result:
    from rasura.registry.cases.handle_case import hold_case

    with order.open() as registry:
        record, changed = hold_case(registry, case_id, order.actor, held=held)
    said = f"case {case_id} is under a legal hold" if held else f"no legal hold is on case {case_id}"
    return Result(encode_case(record), lambda: line(said), changed=changed)
