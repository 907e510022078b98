"""`rasura takedown` and `rasura withdraw`: from a request to a model that no longer draws it, and back."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.command import MODEL_HELP, Order, command, retyping_anchors
from rasura.commands._shared.lists import TRUNCATE, encode_list, say_list
from rasura.commands._shared.output import Result, progress
from rasura.commands.erasing.takedown_plan import encode_plan, print_plan
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from rasura.evaluation.look import Seen
    from rasura.patches.obstacles import Obstacles
    from rasura.patches.prompts.retain_set import RetainSet
    from rasura.registry._storage.records.records import Draft
    from rasura.registry.registry import Registry
    from rasura.registry.takedown.ground import Place
    from rasura.registry.takedown.plan import TakedownPlan
    from rasura.registry.takedown.wanted import WantedConcept

_PATH = click.Path(path_type=Path)
_MODEL = click.option("--model", type=_PATH, metavar="MODEL", help=MODEL_HELP)
_STACK = click.option("--stack", metavar="NAME", help="A stack instead of a model.")
_JUDGE = click.option("--judge", metavar="JUDGE", help="Look at pictures first; as for `rasura evaluate --judge`.")
_PICTURES = click.option(
    "--pictures", type=click.IntRange(1, 64), default=4, show_default=True, metavar="N", help="Of each concept."
)
_POLICY = click.option("--policy", "policy_file", type=_PATH, metavar="FILE", help="Limits that must hold, too.")
_YES = click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
_DRY = click.option("--dry-run", is_flag=True, help="Show the plan, and stop.")
_KEY = click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")


@command(None, "takedown", mutating=True)
@_MODEL
@_STACK
@click.option("--concept", "concepts", multiple=True, metavar="TEXT", help="What to take down; repeatable.")
@click.option("--anchor", "anchors", multiple=True, metavar="TEXT", help="What it becomes [default: auto].")
@click.option("--file", "request_file", type=_PATH, metavar="FILE", help="Requests: CSV, YAML, JSON or names.")
@click.option("--retain", type=_PATH, metavar="FILE[:COLUMN]", help="What to keep [default: what older patches keep].")
@click.option("--retain-column", metavar="NAME", help="The same as a column behind the file's name.")
@TRUNCATE
@click.option(
    "--templates",
    "template_files",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="Prompts with one {}, one a line: one file for all concepts or one each [default: as older patches have].",
)
@_POLICY
@_JUDGE
@_PICTURES
@_YES
@_DRY
@_KEY
def takedown(
    *,
    model: Path | None,
    stack: str | None,
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    request_file: Path | None,
    template_files: tuple[Path, ...],
    retain: Path | None,
    retain_column: str | None,
    truncate: bool,
    order: Order,
    **options: Any,
) -> Result:
    """Take concepts down beside all that is erased already, in one motion.

    Solves, checks, looks if a judge is named, shows the plan, asks, and moves the model or stack; at no moment is an
    earlier takedown un-erased. Exit code 3 if something stands in the way: then nothing changed.
    """
    from rasura.patches.obstacles import Obstacles
    from rasura.patches.prompts.retain_set import load_retain_set
    from rasura.registry.takedown.plan import look_ahead_of_takedown, plan_takedown

    _check_asking(yes=options["yes"], dry_run=options["dry_run"])
    _check_words(concepts, anchors, template_files, request_file)
    place, obstacles = _place(model, stack), Obstacles()
    wanted: tuple[WantedConcept, ...] = ()
    words = stricter = None
    draft = order.draft("takedown.plan")
    with order.open(obstacles) as registry:
        with obstacles.noting():
            wanted = _wanted(concepts, anchors, template_files, request_file)
        with obstacles.noting():
            words = load_retain_set(retain, retain_column, truncate=truncate) if retain else None
        with obstacles.noting():
            stricter = _stricter(options["policy_file"])
        _note_means(registry, obstacles, **options)
        if obstacles:
            look_ahead_of_takedown(registry, place, wanted, obstacles, retain=retain is not None)
            obstacles.refuse()
        if words is not None:
            say_list("retain", words)
        with progress() as tell, retyping_anchors(concepts, anchors, "auto"):
            plan = plan_takedown(
                registry,
                place,
                wanted,
                retain=words,
                templates=(),
                draft=draft,
                progress=tell,
                policy=stricter,
            )
        return _finish(registry, plan, draft, words=words, **options)


@command(None, "withdraw", mutating=True)
@click.argument("names", nargs=-1, required=True, metavar="CONCEPT|ID...")
@_MODEL
@_STACK
@_POLICY
@_JUDGE
@_PICTURES
@_YES
@_DRY
@_KEY
def withdraw(
    *,
    names: tuple[str, ...],
    model: Path | None,
    stack: str | None,
    order: Order,
    **options: Any,
) -> Result:
    """Take takedowns back, in one motion; all others stay erased. With the last one, every byte is the base's."""
    from rasura.evaluation.look import check_judge
    from rasura.patches.obstacles import Obstacles
    from rasura.registry.takedown.ground import sight
    from rasura.registry.takedown.plan_withdrawal import plan_withdrawal

    _check_asking(yes=options["yes"], dry_run=options["dry_run"])
    place, obstacles, stricter = _place(model, stack), Obstacles(), None
    draft = order.draft("takedown.withdraw")
    with order.open(obstacles) as registry:
        with obstacles.noting():
            stricter = _stricter(options["policy_file"])
        if options["judge"]:
            with obstacles.noting():
                check_judge(options["judge"])
        if obstacles:
            sight(registry, place, obstacles)
            obstacles.refuse()
        with progress() as tell:
            plan = plan_withdrawal(registry, place, names, draft=draft, progress=tell, policy=stricter)
        return _finish(registry, plan, draft, **options)


def _finish(
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
            done = carry_out(registry, plan, key=key, draft=draft, progress=tell, policy=_stricter(policy_file))
    hosts = _hosts(registry, plan) if done else []
    changed = done is not None and plan.changes
    data = encode_plan(plan, seen, done) | {"read": [] if words is None else [encode_list("retain", words)]}
    return Result(data, lambda: print_plan(plan, seen, done, hosts), changed=changed)


def _check_asking(*, yes: bool, dry_run: bool) -> None:
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


def _place(model: Path | None, stack: str | None) -> "Place":
    from rasura.registry.takedown.ground import Place

    if (model is None) == (stack is None):
        raise click.UsageError("expected one of --model and --stack")
    return Place(model, stack)


def _check_words(
    concepts: tuple[str, ...], anchors: tuple[str, ...], template_files: tuple[Path, ...], request_file: Path | None
) -> None:
    """What no registry is asked for: whether the command says neither too little nor too much."""
    if (request_file is None) == (not concepts):
        raise click.UsageError("expected one of --concept and --file")
    if request_file is not None and (anchors or len(template_files) > 1):
        raise click.UsageError("with --file, anchors and templates stand in the file; one --templates is for all")


def _note_means(
    registry: "Registry", obstacles: "Obstacles", *, key: str | None, judge: str | None, dry_run: bool, **_: Any
) -> None:
    """Note now what would be missing after minutes of solving: a key to sign with, and a judge to look."""
    from rasura.evaluation.look import check_judge
    from rasura.registry.trust.keys.key_files import signer

    if not dry_run:
        with obstacles.noting():
            signer(registry, key)
    if judge:
        with obstacles.noting():
            check_judge(judge)


def _wanted(
    concepts: tuple[str, ...], anchors: tuple[str, ...], template_files: tuple[Path, ...], request_file: Path | None
) -> "tuple[WantedConcept, ...]":
    from rasura.patches.lists.role import TEMPLATES
    from rasura.patches.prompts.retain_set import load_texts
    from rasura.registry.takedown.wanted import list_wanted
    from rasura.registry.takedown.wanted_file import read_wanted

    templates = [load_texts(path, TEMPLATES) for path in template_files]
    if request_file is not None:
        return read_wanted(request_file, templates[0] if templates else ())
    try:
        return list_wanted(concepts, anchors, templates)
    except InputError as error:
        raise click.UsageError(error.message) from None


def _stricter(policy_file: Path | None) -> Any:
    from rasura.registry.stacks.policy_file import read_policy

    return None if policy_file is None else read_policy(policy_file)


def _hosts(registry: "Registry", plan: "TakedownPlan") -> list[str]:
    """Models that have the stack as it was: they are moved by a command of their own."""
    if plan.ground.place.stack is None:
        return []
    before = plan.ground.strengths.sixteenths
    return [h.location for i in list(before)[:1] for h in registry.hosts(patch=i) if dict(h.applied) == before]
