"""`rasura patch apply`, `switch` and `revert`: what is applied to a model on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY, YES, ask_unerasing
from rasura.commands._shared.command import MODEL_HELP, Order, command, find_patches
from rasura.commands._shared.output import Result, line, many, short
from rasura.commands._shared.progress import progress, show_step
from rasura.commands._shared.views import format_place, format_removal
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.obstacles import Obstacles

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy
    from rasura.registry.apply.receipt import Receipt
    from rasura.registry.registry import Registry

MODEL = click.option("--model", type=click.Path(path_type=Path), required=True, metavar="MODEL", help=MODEL_HELP)
_OUT = click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="Patch a new copy there instead.")
_POLICY = click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path), metavar="FILE", help="Limits that must hold, too."
)
UNSIGNED = "no key that counts has signed it; revert it, or vouch for it: rasura patch sign"


@command(None, "apply", mutating=True)
@click.argument("ids", nargs=-1, required=True, metavar="ID...|PLAN")
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="MODEL", help="Folder or single file; a plan names its own."
)
@_OUT
@click.option("--strength", metavar="S", help="Multiple of 1/16 from -4 to 4 [default: 1].")
@_POLICY
@DRY
def apply(
    *,
    ids: tuple[str, ...],
    model: Path | None,
    out: Path | None,
    strength: str | None,
    policy_file: Path | None,
    dry_run: bool,
    order: Order,
) -> Result:
    """Apply patches to a model, together with those that are applied already: all or nothing.

    What is in force at that strength stays so: applying it again changes nothing and writes no entry. Or do what a
    plan of `rasura plan -o plan.json` says. Exit code 7 if it is stale, 6 if the model changed outside the registry.
    """
    from rasura.registry.apply import operations
    from rasura.registry.apply.preconditions.look_ahead import look_ahead

    if any(_is_file(text) for text in ids):
        if len(ids) > 1 or any(given is not None for given in (model, out, strength, policy_file)):
            raise click.UsageError("a plan stands alone: it names the model, patches, strengths and policy")
        return _apply_plan(Path(ids[0]), order, dry_run=dry_run)
    if model is None:
        raise click.UsageError("Missing option '--model'.")
    obstacles, factor, stricter = Obstacles(), ONE, None
    with order.open(obstacles) as registry, progress() as tell:
        with obstacles.noting():
            factor = Strength.parse("1" if strength is None else strength)
        with obstacles.noting():
            stricter = _stricter(policy_file)
        found = find_patches(registry, ids, obstacles)
        if obstacles:
            look_ahead(registry, model, found, obstacles, strength=factor, stricter=stricter)
            obstacles.refuse()
        tell("applying", 0, 1)
        receipt = operations.apply_to_folder(
            registry, model, found, order.actor, strength=factor, out=out, policy=stricter, dry_run=dry_run
        )
        tell("applying", 1, 1)
    said = f"{'would apply' if dry_run else 'applied'} {len(found)} to {receipt.location}"
    if not receipt.changed:
        said = f"already in force on {receipt.location}: {', '.join(map(short, found))}"
    return receipt_result(receipt, said, dry_run=dry_run)


@command(None, "switch", mutating=True)
@click.argument("goal_ref", metavar="STACK|LOCK")
@MODEL
@_OUT
@_POLICY
@YES
@DRY
def switch(
    *,
    goal_ref: str,
    model: Path,
    out: Path | None,
    policy_file: Path | None,
    yes: bool,
    dry_run: bool,
    order: Order,
) -> Result:
    """Move a model to exactly the patches and strengths of a stack or lock file, in one motion.

    Asks first where a concept that is erased on the model would come back.
    """
    from rasura.registry.apply import operations
    from rasura.registry.apply.preconditions.look_ahead import note_unfit
    from rasura.registry.stacks.stack_ref import goal_of

    obstacles, stricter, goal = Obstacles(), None, None
    with order.open(obstacles) as registry:
        with obstacles.noting():
            stricter = _stricter(policy_file)
        with obstacles.noting():
            goal = goal_of(registry, goal_ref)
        if goal is None or obstacles:
            note_unfit(registry, model, goal, stricter, obstacles)
            obstacles.refuse()
        assert goal is not None
        expected = None if out else _agreed(registry, model, goal.patches, yes=yes or dry_run)
        with show_step("switching"):
            receipt = operations.switch_folder(
                registry,
                model,
                goal,
                order.actor,
                out=out,
                policy=stricter,
                expected=expected,
                dry_run=dry_run,
            )
    has = "would have" if dry_run else "has"
    return receipt_result(receipt, f"{receipt.location} {has} {goal.source}: {counted(receipt)}", dry_run=dry_run)


@command(None, "revert", mutating=True)
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Revert everything.")
@click.option("--force", is_flag=True, help="With --all: put the originals back even if something else was changed.")
@MODEL
@YES
@DRY
def revert(
    *,
    ids: tuple[str, ...],
    everything: bool,
    force: bool,
    model: Path,
    yes: bool,
    dry_run: bool,
    order: Order,
) -> Result:
    """Take patches out of a model; with the last one, all that patches touched is the original again.

    With --all it asks first: everything that is erased comes back.
    """
    from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
    from rasura.registry.apply import operations
    from rasura.registry.apply.hosts.host_state import applied_of, find_record

    if everything == bool(ids):
        raise click.UsageError("name the patches to revert, or --all")
    if force and not everything:
        raise click.UsageError("--force goes with --all")
    with order.open() as registry:
        there = () if everything else applied_of(find_record(registry, CheckpointHost.open(model)))
        found = None if everything else [registry.resolve_patch(i, among=there) for i in ids]
        expected = _agreed(registry, model, Stack(), yes=yes or dry_run, force=force) if everything else None
        with show_step("reverting"):
            receipt = operations.revert(
                registry,
                CheckpointHost.open(model),
                found,
                order.actor,
                force=force,
                expected=expected,
                dry_run=dry_run,
            )
        names = {p: ", ".join(registry.patch(p).concepts) for r in receipt.crossing for p in (r.patch, r.other)}
    said = "everything" if found is None else str(len(found))
    notices = [format_removal(relation, names) for relation in receipt.crossing]
    verb = "would revert" if dry_run else "reverted"
    return receipt_result(receipt, f"{verb} {said} in {receipt.location}", notices, dry_run=dry_run)


def _agreed(registry: "Registry", model: Path, wanted: "Stack", *, yes: bool, force: bool = False) -> "Stack | None":
    """What is applied now, once somebody agreed to what a motion from it would un-erase; None where nobody asked."""
    from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
    from rasura.registry.apply.hosts.host_state import applied_of, find_record, sight_host
    from rasura.registry.apply.preconditions.loss import find_losses

    if yes:
        return None
    host = CheckpointHost.open(model)
    present = applied_of(find_record(registry, host) if force else sight_host(registry, host))
    ask_unerasing(find_losses(registry, present, wanted), format_place(host.location), yes=yes)
    return present


def receipt_result(receipt: "Receipt", said: str, notices: Sequence[str] = (), *, dry_run: bool = False) -> Result:
    """What a motion did, or would do, for machines and people."""
    data: dict[str, Any] = {
        "dry_run": dry_run,
        "location": receipt.location,
        "applied": {patch_id: str(strength) for patch_id, strength in receipt.applied.items()},
        "parameters": receipt.parameters,
        "before": receipt.before,
        "after": receipt.after,
        "pristine": receipt.pristine,
        "beside": receipt.beside,
        "revoked": list(receipt.revoked),
        "notices": list(notices),
    }

    def text() -> None:
        line(said)
        if not receipt.changed:
            line("nothing to change")
            return
        line(f"{many(receipt.parameters, 'parameter')}: {short(receipt.before)} -> {short(receipt.after)}")
        for notice in notices:
            line(notice)
        for patch_id in receipt.revoked:
            line(f"{short(patch_id)} stays, though {UNSIGNED} {short(patch_id)}")
        if receipt.pristine:
            would = "would be" if dry_run else "is"
            line(f"nothing {would} applied any more: all that patches touched is the original again")
        if dry_run:
            line("dry run: nothing was written")

    return Result(data, text, changed=receipt.changed and not dry_run)


def counted(receipt: "Receipt") -> str:
    """How many patches are applied now."""
    return f"{len(receipt.applied)} patch{'' if len(receipt.applied) == 1 else 'es'}"


def _apply_plan(path: Path, order: Order, *, dry_run: bool) -> Result:
    from rasura.registry.stacks.plan import apply_plan
    from rasura.registry.stacks.plan_file import read_plan

    with order.open() as registry, progress() as tell:
        plan = read_plan(path)
        tell("applying", 0, 1)
        receipt = apply_plan(registry, plan, order.actor, dry_run=dry_run)
        tell("applying", 1, 1)
    said = f"{receipt.location} {'would be' if dry_run else 'is'} as planned for {plan.source}: {counted(receipt)}"
    return receipt_result(receipt, said, dry_run=dry_run)


def _is_file(text: str) -> bool:
    """Ids are hexadecimal, so a plan's path is told from them."""
    return text.endswith(".json") or "/" in text


def _stricter(policy_file: Path | None) -> "Policy | None":
    from rasura.registry.stacks.policy_file import read_policy

    return None if policy_file is None else read_policy(policy_file)
