"""`rasura plan`: what a switch of a model would change; and its approval."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import MODEL_HELP, Order, command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, line, many, short, table, verdict
from rasura.commands._shared.progress import progress
from rasura.commands._shared.views import (
    encode_approved,
    encode_difference,
    format_approved,
    list_differences,
    list_worst,
    name_concepts,
)

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry.stacks.plan import Planned
    from rasura.registry.stacks.plan_file import Plan

CHANGES: Final = 10  # exit code of --detailed-exitcode
WORTH_SAYING: Final = 0.001  # share of weights that rounding leaves as they were


@command(None, "plan")
@click.option("--stack", "goal_ref", required=True, metavar="STACK|LOCK", help="Stack or lock file to go to.")
@click.option("--model", type=click.Path(path_type=Path), required=True, metavar="MODEL", help=MODEL_HELP)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan to a file.")
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), metavar="FILE", help="Stricter limits.")
@click.option("--detailed-exitcode", "detailed", is_flag=True, help="Exit code 10 if there is something to change.")
def plan(
    *,
    goal_ref: str,
    model: Path,
    output: Path | None,
    policy_file: Path | None,
    registry_at: str | None,
    detailed: bool,
) -> Result:
    """Say what would change if a model were switched to a stack. Nothing is written to the model or the registry.

    `rasura patch apply FILE` does exactly what the written plan says, or refuses it as stale. Where the trust policy
    asks for that, `rasura plan approve FILE` approves it.
    """
    from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
    from rasura.registry.stacks.plan import make_plan
    from rasura.registry.stacks.plan_file import Plan
    from rasura.registry.stacks.policy_file import read_policy
    from rasura.registry.stacks.stack_ref import goal_of

    stricter = read_policy(policy_file) if policy_file else None
    with open_registry(registry_at) as registry, progress() as tell:
        goal = goal_of(registry, goal_ref)
        tell("planning", 0, 1)
        found = make_plan(registry, CheckpointHost.open(model), goal, policy=stricter)
        tell("planning", 1, 1)
        made = found.plan
        concepts = name_concepts(registry, {*made.before.patches, *made.after.patches})
    if output is not None:
        write_document(output, made.to_bytes(), Plan.from_bytes)
    numbers = {name: {"value": value, "limit": limit} for name, value, limit in list_worst(found.verdict)}
    data = {**_data(made), "unchanged": round(found.unchanged, 6), "worst": numbers}
    code = CHANGES if detailed and made.diff else 0
    where = None if output is None else str(output)
    return Result({**data, "file": where}, lambda: _print(found, concepts, output), bool(output), code)


def _print(found: "Planned", concepts: "Mapping[PatchId, str]", output: Path | None) -> None:
    made, worst = found.plan, list_worst(found.verdict)
    rows = list_differences(made.before.patches, made.after.patches, concepts)
    table(("", "patch", "concept", "strength"), rows) if rows else line("nothing to change")
    line(f"{many(made.parameters, 'parameter')}, {made.size_bytes} bytes to write")
    if found.unchanged >= WORTH_SAYING:
        line(f"{found.unchanged:.1%} of the patched weights keep their bits: the change is less than they resolve")
    line(f"state {short(made.before.state)} -> {short(made.after.state)}")
    numbers = ", ".join(f"{name} {value} of {limit}" for name, value, limit in worst)
    verdict(f"accepted ({numbers})" if worst else "accepted", good=True)
    if output is not None:
        line(f"wrote {output}")


@command(None, "approve", mutating=True)
@click.argument("file", type=click.Path(path_type=Path), metavar="PLAN")
@click.option("--key", metavar="NAME", help="Key that approves [default: the only one].")
@DRY
def approve(file: Path, key: str | None, order: Order, *, dry_run: bool) -> Result:
    """Approve all that a plan of `rasura plan -o PLAN` puts in, on its model and in its state only.

    The key needs the role approve in the trust policy for each of the patches (`rasura trust show`).
    """
    from rasura.registry.stacks.plan_file import read_plan
    from rasura.registry.trust.approvals.approve import approve_plan

    with order.open() as registry:
        made = read_plan(file)
        way, draft = made.diff, order.draft("plan.approve")
        done = approve_plan(registry, made.digest, (*way.added, *way.changed), key, draft, dry_run=dry_run)
        names = {record.key_id: record.name for record in registry.keys()}
    told = format_approved([done], names, dry_run=dry_run)
    changed = not dry_run and done.new
    return Result(encode_approved([done], dry_run=dry_run), lambda: line(told), changed=changed)


def _data(made: "Plan") -> dict[str, Any]:
    return {
        **encode_difference(made.diff),
        "changes": len(made.diff),
        "location": made.location,
        "parameters": made.parameters,
        "bytes": made.size_bytes,
        "before": made.before.state,
        "after": made.after.state,
        "policy": made.policy,
        "accepted": True,
        "plan": made.digest,
    }
