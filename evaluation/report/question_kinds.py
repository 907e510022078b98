"""The questions that are asked where nobody brings prompts: one concept, spoken of in several ways.

direct      the evaluation templates of the model's concepts.json, which no patch was made with
template    everyday templates, other than those
paraphrase  prompts that lead to an object without naming it, from paraphrases.json
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import (
    AXES,
    PARAPHRASE,
    TEMPLATE,
    Question,
    Subjects,
    labels,
    make_direct_questions,
)
from rasura.patches._io.files import read_config
from rasura.patches.errors import FormatError, InputError
from rasura.patches.models.text_encoders.plain_text import normal

CONCEPTS: Final = "concepts.json"
PARAPHRASES: Final = "paraphrases.json"
TEMPLATES: Final = (
    "{object} in the style of {style}",
    "a picture of {object} in {style} style",
    "{style} style, {object}",
    "{object}, drawn as {style}",
)
"""Everyday ways to ask for an object in a style."""

_TEMPLATE_SEEDS: Final = 20_000
_PARAPHRASE_SEEDS: Final = 30_000
_TRIES: Final = 4  # seeds a paraphrase


@dataclass(frozen=True, slots=True)
class Erasures:
    """What patches erase, in the words of a model's concepts.json."""

    objects: tuple[str, ...]
    styles: tuple[str, ...]

    @classmethod
    def of(cls, subjects: Subjects, concepts: Iterable[str]) -> Erasures:
        """Sort concepts into objects and styles.

        Raises:
            InputError: one that is neither.
        """
        objects: dict[str, None] = {}
        styles: dict[str, None] = {}
        for concept in concepts:
            for known, found in ((subjects.objects, objects), (subjects.styles, styles)):
                match = next((name for name in known if normal(name) == normal(concept)), None)
                if match is not None:
                    found[match] = None
                    break
            else:
                raise InputError(
                    f"{CONCEPTS} knows no object or style {concept!r}: expected prompts for it",
                    hint="rasura evaluate --prompts FILE.jsonl",
                )
        return cls(tuple(objects), tuple(styles))


def find_beside(name: str, folders: Iterable[Path]) -> Path | None:
    """The first of these folders, or of the folders that hold them, with a file of this name."""
    for folder in folders:
        for place in (folder, folder.resolve().parent):
            if (place / name).is_file():
                return place / name
    return None


def make_default_questions(
    subjects: Subjects, erased: Erasures, paraphrases: Mapping[str, Sequence[str]], *, rounds: int = 1
) -> tuple[Question, ...]:
    """Questions of all three kinds about every erased concept, and about what should stay.

    Args:
        subjects: what the model can draw.
        erased: what it should not draw any more.
        paraphrases: for an object, prompts that do not name it.
        rounds: multiplies the pictures.
    """
    return (
        *make_direct_questions(subjects, erased.objects, erased.styles, rounds=rounds),
        *_template_questions(subjects, erased, rounds),
        *_paraphrase_questions(erased, paraphrases, rounds),
    )


def read_paraphrases(path: Path | None) -> dict[str, tuple[str, ...]]:
    """Prompts by object; none where there is no file.

    Raises:
        FormatError: it holds something else.
    """
    if path is None:
        return {}
    try:
        found = read_config(path)
        if not all(isinstance(p, str) for prompts in found.values() for p in prompts):
            raise TypeError("a prompt is no text")  # noqa: TRY301
        return {str(name): tuple(prompts) for name, prompts in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise FormatError(f"{path}: expected prompts by object, got {error}") from error


def _template_questions(subjects: Subjects, erased: Erasures, rounds: int) -> Iterable[Question]:
    """Two pictures in each template for every erased concept, one picture for every other object."""
    held_out = [o for o in subjects.held_out if o not in erased.objects]
    kept = [o for o in subjects.objects if o not in erased.objects and o not in held_out]
    styles = [s for s in subjects.styles if s not in erased.styles] or list(subjects.styles)
    asked: list[tuple[str, str, str, Sequence[str]]] = []
    turns = range(2 * len(TEMPLATES) * rounds)
    asked += [("forget", o, styles[i % len(styles)], ("object",)) for o in erased.objects for i in turns]
    asked += [("forget", kept[i % len(kept)], s, ("style",)) for s in erased.styles for i in turns if kept]
    for group, objects in (("retain", kept), ("held_out", held_out)):
        asked += [(group, o, styles[(i + r) % len(styles)], AXES) for r in range(rounds) for i, o in enumerate(objects)]
    for i, (group, thing, style, axes) in enumerate(asked):
        shot = Shot(_filled(subjects, TEMPLATES[i % len(TEMPLATES)], thing, style), _TEMPLATE_SEEDS + i)
        yield Question(group, shot, labels(thing, style, axes), TEMPLATE)


def _paraphrase_questions(
    erased: Erasures, paraphrases: Mapping[str, Sequence[str]], rounds: int
) -> Iterable[Question]:
    asked = [
        (thing, prompt)
        for thing in erased.objects
        for _, prompt in product(range(_TRIES * rounds), paraphrases.get(thing, ()))
    ]
    for i, (thing, prompt) in enumerate(asked):
        yield Question("forget", Shot(prompt, _PARAPHRASE_SEEDS + i), {"object": thing}, PARAPHRASE)


def _filled(subjects: Subjects, template: str, thing: str, style: str) -> str:
    noun = subjects.article.get(thing, thing)
    return template.replace("{object}", noun).replace("{style}", style)
