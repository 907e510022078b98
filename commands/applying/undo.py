"""`rasura undo`: the last motion taken back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY, YES, ask_unerasing
from rasura.commands._shared.command import MODEL_HELP, Order, command
from rasura.commands._shared.output import Result, line, short
from rasura.commands._shared.progress import show_step
from rasura.commands._shared.views import encode_difference, format_place, list_differences, name_concepts

if TYPE_CHECKING:
    from rasura.registry.standing.undo import Undo, Undone


@command(None, "undo", mutating=True)
@click.option("--model", type=click.Path(path_type=Path), metavar="MODEL", help=MODEL_HELP)
@click.option("--stack", metavar="NAME", help="A stack instead of a model.")
@YES
@DRY
def undo(
    *,
    model: Path | None,
    stack: str | None,
    yes: bool,
    dry_run: bool,
    order: Order,
) -> Result:
    """Take the last motion of a model or a stack back; without either, the last one of all.

    A motion of its own, with its own entry, which the next undo takes back. Says what it does; asks before it
    un-erases anything. Exit code 7 where the last motion has no inverse.
    """
    from rasura.registry.standing.undo import plan_undo
    from rasura.registry.standing.undo import undo as carry_out

    if model is not None and stack is not None:
        raise click.UsageError("expected one of --model and --stack, or neither")
    with order.open() as registry:
        planned = plan_undo(registry, model=model, stack=stack)
        rows = list_differences(
            planned.present, planned.wanted, name_concepts(registry, {*planned.present, *planned.wanted})
        )
        place = format_place(planned.place)
        if not dry_run:
            ask_unerasing(planned.losses, place, yes=yes)
        with show_step("undoing"):
            done = carry_out(registry, planned, order.actor, dry_run=dry_run)
    return Result(
        _data(planned, done, dry_run=dry_run),
        lambda: _print(planned, done, rows, place, dry_run=dry_run),
        changed=not dry_run,
    )


def _print(
    planned: "Undo", done: "Undone", rows: "list[tuple[str, str, str, str]]", place: str, *, dry_run: bool
) -> None:
    entry = planned.entry
    would = "would undo" if dry_run else "undid"
    line(f"{would} entry {entry.index} of {place}: {entry.action} by {entry.actor}, {entry.time:%Y-%m-%d %H:%M}")
    for sign, patch, concept, strength in rows:
        line(f"  {sign} {concept} ({patch}, strength {strength})")
    if planned.gone:
        line(f"  the stack {'would be' if dry_run else 'is'} there again")
    receipt = done.receipt
    if receipt is not None:
        line(f"{short(receipt.before)} -> {short(receipt.after)}")
        if receipt.pristine:
            line(f"nothing {'would be' if dry_run else 'is'} applied any more: every byte is the original again")
    if not dry_run:
        line("to take this back: rasura undo")


def _data(planned: "Undo", done: "Undone", *, dry_run: bool) -> dict[str, Any]:
    receipt = done.receipt
    return {
        "dry_run": dry_run,
        "undoes": planned.entry.index,
        "action": planned.entry.action,
        "place": planned.place,
        **encode_difference(planned.present.diff(planned.wanted)),
        "applied": {patch_id: str(strength) for patch_id, strength in planned.wanted.items()},
        "unerases": [loss.concept for loss in planned.losses],
        "before": receipt.before if receipt else None,
        "after": receipt.after if receipt else None,
        "pristine": bool(receipt and receipt.pristine),
    }
