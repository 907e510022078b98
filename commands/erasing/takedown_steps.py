"""What `rasura takedown` and `rasura withdraw` share: their options, and from a plan to what came of it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rasura.commands._shared.command import MODEL_HELP
from rasura.commands._shared.lists import encode_list
from rasura.commands._shared.output import Result
from rasura.commands._shared.progress import progress
from rasura.commands.erasing.takedown_plan import encode_plan, print_plan

if TYPE_CHECKING:
    from rasura.evaluation.look import Seen
    from rasura.patches.checks.policy import Policy
    from rasura.patches.prompts.retain_set import RetainSet
    from rasura.registry._storage.records.records import Draft
    from rasura.registry.registry import Registry
    from rasura.registry.takedown.ground import Place
    from rasura.registry.takedown.plan import TakedownPlan

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_PLACE = (
    click.option("--model", type=_PATH, metavar="MODEL", help=MODEL_HELP),
    click.option("--stack", metavar="NAME", help="A stack instead of a model."),
)
_MOTION = (
    click.option("--policy", "policy_file", type=_PATH, metavar="FILE", help="Limits that must hold, too."),
    click.option("--judge", metavar="JUDGE", help="Look at pictures first; as for `rasura evaluate --judge`."),
    click.option(
        "--pictures", type=click.IntRange(1, 64), default=4, show_default=True, metavar="N", help="Of each concept."
    ),
    click.option("--yes", "-y", is_flag=True, help="Do it without asking."),
    click.option("--dry-run", is_flag=True, help="Show the plan, and stop."),
    click.option("--key", metavar="NAME", help="Key to sign with [default: the only one]."),
)


def place_options(function: F) -> F:
    """A command that goes to a model or to a stack."""
    for option in reversed(_PLACE):
        function = option(function)
    return function


def motion_options(function: F) -> F:
    """A command that plans, looks, asks and moves."""
    for option in reversed(_MOTION):
        function = option(function)
    return function


def finish(
    registry: "Registry",
    plan: "TakedownPlan",
    draft: "Draft",
    *,
    policy_file: Path | None,
    judge: str | None,
    pictures: int,
    yes: bool,
    dry_run: bool,
    key: str | None,
    words: "RetainSet | None" = None,
) -> Result:
    """Look, show, ask, do."""
    from rasura.evaluation.look import look_at_plan, require_unseen
    from rasura.registry.takedown.carry_out import carry_out

    seen: Sequence[Seen] = ()
    if judge and plan.changes:
        with progress() as tell:
            seen = look_at_plan(plan, judge, n=pictures, progress=tell)
    done = None
    if not dry_run:
        require_unseen(seen)
        _ask(plan, seen, yes=yes)
        with progress() as tell:
            done = carry_out(registry, plan, key=key, draft=draft, progress=tell, policy=read_stricter(policy_file))
    hosts = _hosts(registry, plan) if done else []
    changed = done is not None and plan.changes
    data = encode_plan(plan, seen, done) | {"read": [] if words is None else [encode_list("retain", words)]}
    return Result(data, lambda: print_plan(plan, seen, done, hosts), changed=changed)


def check_asking(*, yes: bool, dry_run: bool) -> None:
    """Before minutes are spent: whether somebody is there to ask."""
    if yes or dry_run:
        return
    if click.get_current_context().params.get("as_json") or not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: expected --yes to do it, or --dry-run to see the plan")


def _ask(plan: "TakedownPlan", seen: Sequence["Seen"], *, yes: bool) -> None:
    if yes or not plan.changes:
        return
    print_plan(plan, seen, None, [])
    click.confirm(f"Move {plan.ground.place.source.removeprefix('@')}?", abort=True)


def read_place(model: Path | None, stack: str | None) -> "Place":
    """Where it goes: a model or a stack.

    Raises:
        UsageError: both or neither.
    """
    from rasura.registry.takedown.ground import Place

    if (model is None) == (stack is None):
        raise click.UsageError("expected one of --model and --stack")
    return Place(model, stack)


def read_stricter(policy_file: Path | None) -> "Policy | None":
    """Limits that must hold, too; None where no file was named.

    Raises:
        NotFoundError, InputError, FormatError: see `rasura.registry.stacks.policy_file.read_policy`.
    """
    from rasura.registry.stacks.policy_file import read_policy

    return None if policy_file is None else read_policy(policy_file)


def _hosts(registry: "Registry", plan: "TakedownPlan") -> list[str]:
    """Models that have the stack as it was: they are moved by a command of their own."""
    if plan.ground.place.stack is None:
        return []
    before = plan.ground.strengths.sixteenths
    return [h.location for i in list(before)[:1] for h in registry.hosts(patch=i) if dict(h.applied) == before]
