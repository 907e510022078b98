"""Options that say what a concept is called besides; of `erase` and `takedown` alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rasura.patches.lists.role import NAMES
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import load_texts

F = TypeVar("F", bound=Callable[..., Any])

_ALSO_CALLED = click.option(
    "--also-called",
    "names",
    multiple=True,
    metavar="[CONCEPT=]NAME",
    help="What a concept is called besides: a synonym, a translation, a descriptive name; repeatable.",
)
_NAMES = click.option(
    "--names",
    "name_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE[:COLUMN]",
    help="The same, one a line: one file for each concept.",
)


def concept_names(function: F) -> F:
    """A command whose concepts may have other names."""
    return _ALSO_CALLED(_NAMES(function))


def read_names(
    concepts: tuple[str, ...], given: tuple[str, ...], files: tuple[Path, ...], obstacles: Obstacles
) -> list[tuple[str, ...]]:
    """What each concept is called besides, in the concepts' order.

    Raises:
        UsageError: a name of none of them, or another number of files.
    """
    if files and len(files) != len(concepts):
        raise click.UsageError(f"{len(concepts)} concepts and {len(files)} files of names: expected one each")
    found: list[list[str]] = [[] for _ in concepts]
    for own, path in zip(found, files, strict=False):
        with obstacles.noting():
            own.extend(load_texts(path, NAMES))
    places = {normal(concept): place for place, concept in reversed(list(enumerate(concepts)))}
    for text in given:
        whose, equals, name = text.partition("=")
        if equals and normal(whose) in places:
            found[places[normal(whose)]].append(name)
        elif len(concepts) == 1 and not equals:
            found[0].append(text)
        else:
            raise click.UsageError(_say_form(concepts, text))
    return [tuple(own) for own in found]


def _say_form(concepts: tuple[str, ...], text: str) -> str:
    """What is wrong with a name, and how it is written."""
    if len(concepts) > 1 or not concepts:
        return f"--also-called {text}: expected CONCEPT=NAME with one of {', '.join(concepts)}"
    whose, _, name = text.partition("=")
    (own,) = concepts
    return (
        f"--also-called {text}: {whose!r} is none of the concepts; expected {own}={name}, or if the name itself "
        f"holds a '=', {own}={text}"
    )
