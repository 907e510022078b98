"""`rasura patch bisect`: which patch of a stack does harm."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import MODEL_HELP, Order, Verbs, command
from rasura.commands._shared.output import Result, line, short
from rasura.commands._shared.views import name_concepts
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry.stacks.bisection.bisect import Judgement, Step

_STDERR: Final = 2  # the descriptor: standard output is the command's own answer


@click.group(cls=Verbs)
def bisect() -> None:
    """Find the patch of a stack that does harm, by halving: start, good, bad, skip, run, reset."""


@command(bisect, "start", mutating=True)
@click.argument("name", metavar="STACK")
@click.option("--model", type=click.Path(path_type=Path), required=True, metavar="MODEL", help=MODEL_HELP)
@DRY
def start(name: str, model: Path, order: Order, *, dry_run: bool) -> Result:
    """Begin: with the whole stack the model is bad, with none of it good. The model is given half of it."""
    from rasura.registry.stacks.bisection import bisect as halving

    with order.open() as registry:
        step = halving.start(registry, name, model, order.actor, dry_run=dry_run)
        return _told(step, name_concepts(registry, {p for p, _ in step.state.order}), dry_run=dry_run)


@command(bisect, "good", mutating=True)
@DRY
def good(order: Order, *, dry_run: bool) -> Result:
    """Say that the model is good as it is now, and go on."""
    return _judged("good", order, dry_run=dry_run)


@command(bisect, "bad", mutating=True)
@DRY
def bad(order: Order, *, dry_run: bool) -> Result:
    """Say that the model is bad as it is now, and go on."""
    return _judged("bad", order, dry_run=dry_run)


@command(bisect, "skip", mutating=True)
@DRY
def skip(order: Order, *, dry_run: bool) -> Result:
    """Say that the model cannot be judged as it is now, and go on with another subset."""
    return _judged("skip", order, dry_run=dry_run)


@command(bisect, "run", mutating=True)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD...")
def run(words: tuple[str, ...], order: Order) -> Result:
    """Let a command judge to the end: exit code 0 is good, 125 skips, 1 to 127 is bad, anything else stops.

    A command's own options go after `--`. What it prints goes to standard error.
    """
    from rasura.registry.stacks.bisection import bisect as halving

    with order.open() as registry:
        concepts: dict[PatchId, str] = {}

        def tell(step: "Step") -> None:
            concepts.update(concepts or name_concepts(registry, {p for p, _ in step.state.order}))
            click.echo("\n".join(_lines(step, concepts)), err=True)

        step = halving.run(registry, lambda: _exit_code(words), order.actor, tell)
    return _told(step, concepts)


@command(bisect, "reset", mutating=True)
@click.option("--leave", is_flag=True, help="Leave the model as it is now.")
@DRY
def reset(order: Order, *, leave: bool, dry_run: bool) -> Result:
    """End the bisection and give the model back what it had before."""
    from rasura.registry.stacks.bisection import bisect as halving

    with order.open() as registry:
        state = halving.reset(registry, order.actor, leave=leave, dry_run=dry_run)
    verb = "would be" if dry_run else "is"
    said = f"{state.location} {verb} {'left as it is' if leave else 'what it was before'}"
    data = {"stack": state.stack, "location": state.location, "left": leave, "dry_run": dry_run}
    return Result(data, lambda: line(said), changed=not dry_run)


def _judged(judgement: "Judgement", order: Order, *, dry_run: bool) -> Result:
    from rasura.registry.stacks.bisection import bisect as halving

    with order.open() as registry:
        step = halving.judge(registry, judgement, order.actor, dry_run=dry_run)
        return _told(step, name_concepts(registry, {p for p, _ in step.state.order}), dry_run=dry_run)


def _exit_code(words: tuple[str, ...]) -> int:
    import subprocess

    try:
        return subprocess.run(words, stdout=_STDERR, check=False).returncode  # noqa: S603  # what the user typed
    except OSError as error:
        raise InputError(f"cannot run {words[0]}: {error.strerror}", hint="rasura patch bisect run CMD...") from None


def _told(step: "Step", concepts: "dict[PatchId, str]", *, dry_run: bool = False) -> Result:
    state = step.state
    data: dict[str, Any] = {
        "stack": state.stack,
        "location": state.location,
        "order": [patch_id for patch_id, _ in state.order],
        "good": state.good,
        "bad": state.bad,
        "skipped": sorted(state.skipped),
        "testing": state.testing,
        "finished": state.over,
        "suspects": list(state.suspects),
        "dry_run": dry_run,
    }
    return Result(data, lambda: line("\n".join(_lines(step, concepts, dry_run=dry_run))), changed=not dry_run)


def _lines(step: "Step", concepts: "dict[PatchId, str]", *, dry_run: bool = False) -> list[str]:
    state, has, verb = step.state, "would have" if dry_run else "has", "would be" if dry_run else "is"
    told = [f"the composer refuses the first {count}: skipped" for count in step.refused]
    if state.testing is not None:
        left = math.ceil(math.log2(state.bad - state.good))
        steps = f"about {left} step{'' if left == 1 else 's'} left"
        told.append(f"the model {has} the first {state.testing} of {len(state.order)} patches; {steps}")
        last = state.order[state.testing - 1][0]
        return [*told, f"the last of them: {short(last)} {concepts[last]}"]
    suspects = [f"{short(patch_id)} {concepts[patch_id]}" for patch_id in state.suspects]
    if len(suspects) == 1:
        told.append(f"first bad patch: {suspects[0]}")
    else:
        told += ["one of these is the first bad patch; those between them were skipped:", *suspects]
    if state.good:
        before = "the one before it is good" if state.good == 1 else f"the {state.good} before it are good together"
        told.append(f"{before}; that it is bad by itself was not tried")
    return [*told, f"{state.location} {verb} what it was before"]
