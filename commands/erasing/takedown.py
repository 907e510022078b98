"""`rasura takedown`: from a request to a model that no longer draws it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.command import Order, command
from rasura.commands._shared.lists import RETAIN_COLUMN, TRUNCATE, say_list
from rasura.commands._shared.output import Result
from rasura.commands._shared.progress import progress
from rasura.commands._shared.retyping import retyping_anchors
from rasura.commands.erasing.concept_names import concept_names, read_names
from rasura.commands.erasing.method_options import METHOD, method_choices, read_method
from rasura.commands.erasing.takedown_hints import mending_takedown
from rasura.commands.erasing.takedown_steps import (
    check_asking,
    finish,
    motion_options,
    place_options,
    read_place,
    read_stricter,
)
from rasura.patches.errors import InputError
from rasura.patches.lists.role import TEMPLATES
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import load_retain_set, load_texts

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy
    from rasura.patches.prompts.retain_set import RetainSet
    from rasura.registry.registry import Registry
    from rasura.registry.takedown.solving.recipe import Recipe
    from rasura.registry.takedown.wanted import WantedConcept

_PATH = click.Path(path_type=Path)
_CONCEPTS = ("concepts", "anchors", "names", "name_files", "template_files", "request_file")
_WORDS = (*_CONCEPTS, "retain", "retain_column", "truncate")
_CHOICES = ("method", "settings", "seed", "layers", "tokens", "rank_rule")


@command(None, "takedown", mutating=True)
@place_options
@click.option("--concept", "concepts", multiple=True, metavar="TEXT", help="What to take down; repeatable.")
@click.option("--anchor", "anchors", multiple=True, metavar="TEXT", help="What it becomes [default: auto].")
@concept_names
@click.option("--file", "request_file", type=_PATH, metavar="FILE", help="Requests: CSV, YAML, JSON or names.")
@click.option("--retain", type=_PATH, metavar="FILE[:COLUMN]", help="What to keep [default: what older patches keep].")
@RETAIN_COLUMN
@TRUNCATE
@click.option(
    "--templates",
    "template_files",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="Prompts with one {}, one a line: one file for all concepts or one each [default: as older patches have].",
)
@click.option(
    "--method",
    metavar="NAME",
    help=f"Eraser of what is new; see `rasura methods` [default: {METHOD}]. What stands keeps its own.",
)
@method_choices
@motion_options
def takedown(
    *,
    model: Path | None,
    stack: str | None,
    order: Order,
    **options: Any,
) -> Result:
    """Take concepts down beside all that is erased already, in one motion.

    Solves, checks, looks if a judge is named, shows the plan, asks, and moves the model or stack; at no moment is an
    earlier takedown un-erased. Exit code 3 if something stands in the way: then nothing changed.
    """
    from rasura.registry.takedown.plan import look_ahead_of_takedown, plan_takedown

    typed = {name: options.pop(name) for name in (*_WORDS, *_CHOICES)}
    check_asking(yes=options["yes"], dry_run=options["dry_run"])
    _check_words(**typed)
    place, obstacles, draft = read_place(model, stack), Obstacles(), order.draft("takedown.plan")
    with order.open(obstacles) as registry, mending_takedown(registry, model, typed):
        asked = _read_asked(obstacles, typed, options["policy_file"])
        _note_means(registry, obstacles, **options)
        if obstacles:
            kept = typed["retain"] is not None
            look_ahead_of_takedown(registry, place, asked.wanted, obstacles, retain=kept, recipe=asked.recipe)
            obstacles.refuse()
        if asked.words is not None:
            say_list("retain", asked.words)
        with progress() as tell, retyping_anchors(typed["concepts"], typed["anchors"], "auto"):
            plan = plan_takedown(
                registry,
                place,
                asked.wanted,
                retain=asked.words,
                templates=(),
                draft=draft,
                progress=tell,
                policy=asked.stricter,
                recipe=asked.recipe,
            )
        return finish(registry, plan, draft, words=asked.words, **options)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was typed, as far as it could be read."""

    wanted: "tuple[WantedConcept, ...]"
    recipe: "Recipe | None"
    words: "RetainSet | None"
    stricter: "Policy | None"


def _read_asked(obstacles: Obstacles, typed: Mapping[str, Any], policy_file: Path | None) -> _Asked:
    """Every option that names concepts, words, limits or a method, so that all that is wrong is said at once."""
    wanted: tuple[WantedConcept, ...] = ()
    recipe = words = stricter = None
    with obstacles.noting():
        wanted = _wanted(obstacles, **typed)
    with obstacles.noting():
        recipe = _recipe(**typed)
    with obstacles.noting():
        words = _words(**typed)
    with obstacles.noting():
        stricter = read_stricter(policy_file)
    return _Asked(wanted, recipe, words, stricter)


def _words(*, retain: Path | None, retain_column: str | None, truncate: bool, **_: Any) -> "RetainSet | None":
    return load_retain_set(retain, retain_column, truncate=truncate) if retain else None


def _check_words(
    *,
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    names: tuple[str, ...],
    name_files: tuple[Path, ...],
    template_files: tuple[Path, ...],
    request_file: Path | None,
    **_: Any,
) -> None:
    """What no registry is asked for: whether the command says neither too little nor too much."""
    if (request_file is None) == (not concepts):
        raise click.UsageError("expected one of --concept and --file")
    if request_file is not None and (anchors or names or name_files or len(template_files) > 1):
        raise click.UsageError("with --file, anchors, names, templates stand in the file; one --templates is for all")


def _note_means(
    registry: "Registry", obstacles: Obstacles, *, key: str | None, judge: str | None, dry_run: bool, **_: Any
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
    obstacles: Obstacles,
    *,
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    names: tuple[str, ...],
    name_files: tuple[Path, ...],
    template_files: tuple[Path, ...],
    request_file: Path | None,
    **_: Any,
) -> "tuple[WantedConcept, ...]":
    from rasura.registry.takedown.wanted import list_wanted
    from rasura.registry.takedown.wanted_file import read_wanted

    templates = [load_texts(path, TEMPLATES) for path in template_files]
    if request_file is not None:
        return read_wanted(request_file, templates[0] if templates else ())
    called = read_names(concepts, names, name_files, obstacles)
    try:
        return list_wanted(concepts, anchors, templates, called)
    except InputError as error:
        raise click.UsageError(error.message) from None


def _recipe(
    *,
    method: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    layers: str | None,
    tokens: str | None,
    rank_rule: str | None,
    **_: Any,
) -> "Recipe | None":
    """How it is to be erased; None where nobody said: then what is there keeps its own way."""
    from rasura.registry.takedown.solving.recipe import make_recipe

    if not (method or settings or layers or tokens or rank_rule) and seed is None:
        return None
    eraser = read_method(method or METHOD, settings, seed)
    return make_recipe(eraser, layers=layers, tokens=tokens, rank_rule=rank_rule)
