"""Questions to a model and a judge: does it still draw what is asked, before and after?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rasura.evaluation.painter import Shot
from rasura.patches.errors import FormatError, NotFoundError


@dataclass(frozen=True, slots=True)
class Subjects:
    """What a small model can draw, read from its `concepts.json`.

    Attributes:
        objects: every object.
        superclass: the more general word of each object.
        styles: every style.
        held_out: objects that no retain list names.
        article: each noun with its article.
        templates: prompts with `{object}` and `{style}` that training never saw.
    """

    objects: tuple[str, ...]
    superclass: Mapping[str, str]
    styles: tuple[str, ...]
    held_out: tuple[str, ...]
    article: Mapping[str, str]
    templates: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Subjects:
        """Read the file.

        Raises:
            NotFoundError: no such file.
            FormatError: it does not hold what is needed.
        """
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                tuple(facts["objects"]),
                dict(facts["superclass"]),
                tuple(facts["styles"]),
                tuple(facts["held_out"]),
                dict(facts["with_article"]),
                tuple(facts["evaluation_templates"]),
            )
        except FileNotFoundError:
            raise NotFoundError(f"{path} does not exist: expected the reference model's concepts.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path} is not a reference model's concepts.json: {error}") from error

    def prompt(self, thing: str, style: str, template: int = 0) -> str:
        """A prompt for an object in a style."""
        noun = self.article.get(thing, thing)
        return self.templates[template % len(self.templates)].replace("{object}", noun).replace("{style}", style)


@dataclass(frozen=True, slots=True)
class Question:
    """One picture and what the judge should say of it.

    Attributes:
        group: what the picture stands for: "target object", "retained", …
        shot: prompt and seed.
        thing: the object that was asked for.
        style: the style that was asked for.
    """

    group: str
    shot: Shot
    thing: str
    style: str


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers before and after, of n."""

    name: str
    n: int
    before: int
    after: int


def questions(subjects: Subjects, thing: str, style: str, *, rounds: int = 1) -> tuple[Question, ...]:
    """The pictures that judge the erasure of one object and one style; `rounds` multiplies them.

    Seeds count up, so every picture starts from noise of its own, the same before and after.
    """
    kept = [o for o in subjects.objects if o != thing and o not in subjects.held_out]
    styles = [s for s in subjects.styles if s != style]
    asked: list[tuple[str, str, str]] = []
    asked += [("target object", thing, s) for s in styles] * (4 * rounds)
    asked += [("target style", o, style) for o in kept[: 16 * rounds]]
    asked += [("retained", o, styles[(i + r) % len(styles)]) for r in range(2 * rounds) for i, o in enumerate(kept)]
    asked += [("held out", o, s) for _ in range(3 * rounds) for o, s in product(subjects.held_out, styles)]
    return tuple(
        Question(group, Shot(subjects.prompt(o, s, seed), seed), o, s) for seed, (group, o, s) in enumerate(asked)
    )


def scores(
    asked: Sequence[Question], before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]
) -> Iterator[Score]:
    """Accuracy per group: the erased property of targets, object and style of everything else."""
    for name, group, part in (
        ("target object", "target object", 0),
        ("target style", "target style", 1),
        ("retained objects", "retained", 0),
        ("retained styles", "retained", 1),
        ("held-out objects", "held out", 0),
        ("held-out styles", "held out", 1),
    ):
        chosen = [i for i, question in enumerate(asked) if question.group == group]
        wanted = [(asked[i].thing, asked[i].style)[part] for i in chosen]
        yield Score(
            name,
            len(chosen),
            sum(before[i][part] == w for i, w in zip(chosen, wanted, strict=True)),
            sum(after[i][part] == w for i, w in zip(chosen, wanted, strict=True)),
        )
