"""What is asked of `rasura erase`: its options, and the request they make, with all that is wrong said at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rasura.commands._shared.command import find_patches
from rasura.commands._shared.lists import HELD_OUT, RETAIN, RETAIN_COLUMN, TRUNCATE
from rasura.commands.erasing.concept_names import concept_names, read_names
from rasura.commands.erasing.method_options import METHOD, method_choices, read_method
from rasura.patches.lists.role import ANCHORS, TEMPLATES
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import load_held_out, load_retain_set, load_texts

if TYPE_CHECKING:
    from rasura.patches.erasers.interface import Eraser
    from rasura.patches.erasers.request import EraseRequest
    from rasura.patches.prompts.concept_prompts import Target
    from rasura.patches.types import PatchId
    from rasura.registry.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])
_T = TypeVar("_T")

_PATH: Final = click.Path(path_type=Path)
_OPTIONS: Final = (
    click.option(
        "--concept", "concepts", multiple=True, required=True, metavar="TEXT", help="What to erase; repeatable."
    ),
    click.option(
        "--anchor",
        "anchors",
        multiple=True,
        metavar="TEXT",
        help="What it becomes: one for all or one each; 'auto' takes the nearest of --anchors.",
    ),
    concept_names,
    click.option("--anchors", "anchor_file", type=_PATH, metavar="FILE", help="General concepts for --anchor auto."),
    RETAIN,
    RETAIN_COLUMN,
    click.option("--strict", is_flag=True, help="Refuse a retain set that names a target or repeats itself."),
    HELD_OUT,
    TRUNCATE,
    click.option("--method", default=METHOD, show_default=True, metavar="NAME", help="Eraser; see `rasura methods`."),
    method_choices,
    click.option("--template", "templates", multiple=True, metavar="TEXT", help="Prompt with one {}; repeatable."),
    click.option(
        "--templates",
        "template_files",
        type=_PATH,
        multiple=True,
        metavar="FILE",
        help="Prompts, one a line: one file for all concepts or one each.",
    ),
)


def request_options(function: F) -> F:
    """A command that is asked to erase concepts, with the options that `read_request` reads."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read_request(
    obstacles: Obstacles,
    *,
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    names: tuple[str, ...],
    name_files: tuple[Path, ...],
    template_files: tuple[Path, ...],
    method: str,
    settings: tuple[str, ...],
    seed: int | None,
    retain: Path | None,
    **others: Any,
) -> "EraseRequest | None":
    """What was asked for; None where something of it could not be read, which is noted.

    Raises:
        UsageError: numbers of options that do not belong together, or a method that needs a retain set and got none.
    """
    called = read_names(concepts, names, name_files, obstacles)
    targets = _read_targets(concepts, anchors, template_files, called, obstacles)
    eraser = None
    with obstacles.noting():
        eraser = read_method(method, settings, seed)
    if eraser is not None and retain is None and eraser.defaults.needs_retain:
        raise click.UsageError(f"method {method} needs to know what to keep: --retain FILE")
    return _read_lists(obstacles, eraser, targets, retain, **others)


def _read_lists(
    obstacles: Obstacles,
    eraser: "Eraser | None",
    targets: "tuple[Target, ...]",
    retain: Path | None,
    *,
    retain_column: str | None,
    anchor_file: Path | None,
    held_out: Path | None,
    truncate: bool,
    **choices: Any,
) -> "EraseRequest | None":
    """Every list, so that all faults are said at once; the request, if there were none and the method is known."""
    from rasura.patches.erasers.request_for import request_for

    kept, aside = None, None
    general: tuple[str, ...] = ()
    with obstacles.noting():
        kept = load_retain_set(retain, retain_column, truncate=truncate) if retain else None
    with obstacles.noting():
        aside = load_held_out(held_out, truncate=truncate) if held_out else None
    with obstacles.noting():
        general = load_texts(anchor_file, ANCHORS) if anchor_file else ()
    if obstacles or eraser is None:
        return None
    with obstacles.noting():
        return request_for(eraser, targets, kept, held_out=aside or (), anchors=general, **choices)
    return None


def _read_targets(
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    template_files: tuple[Path, ...],
    names: Sequence[tuple[str, ...]],
    obstacles: Obstacles,
) -> "tuple[Target, ...]":
    """The concepts, each with its anchor and what else it is called."""
    from rasura.patches.prompts.concept_prompts import Target

    for what, given in (("anchors", anchors), ("template files", template_files)):
        if len(given) not in {0, 1, len(concepts)}:
            raise click.UsageError(
                f"{len(concepts)} concepts and {len(given)} {what}: expected one for all, or one each"
            )
    templates: list[tuple[str, ...]] = []
    for path in template_files:
        with obstacles.noting():
            templates.append(load_texts(path, TEMPLATES))
    if len(templates) < len(template_files):
        templates = []
    return tuple(
        Target(concept, anchor, own, called)
        for concept, anchor, own, called in zip(
            concepts, _spread(anchors, "", len(concepts)), _spread(templates, (), len(concepts)), names, strict=True
        )
    )


def _spread(given: Sequence[_T], default: _T, count: int) -> list[_T]:
    """One for all, or one each."""
    return list(given) if len(given) == count else [given[0] if given else default] * count


def find_protected(
    registry: "Registry", protect: tuple[str, ...], onto_stack: str | None, obstacles: Obstacles
) -> "list[PatchId]":
    """The patches that `--protect` and `--onto-stack` name; `all` is not one of them."""
    from rasura.registry.stacks.stack_ref import side_of

    named = find_patches(registry, [ref for ref in protect if ref != "all"], obstacles)
    with obstacles.noting():
        named += side_of(registry, onto_stack).patches if onto_stack else ()
    return named
