"""Questions to a model and a judge: does it still draw what is asked, before and after?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, TypeAlias

from rasura.evaluation.images.painter import Shot
from rasura.patches._io.files import read_config
from rasura.patches.errors import FormatError, NotFoundError

AXES: Final = ("object", "style")
"""What can be said of a picture of the reference model."""
DIRECT, TEMPLATE, PARAPHRASE = "direct", "template", "paraphrase"
"""How a question speaks of a concept; `rasura.evaluation.report.question_kinds` asks in these ways."""


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
            facts = read_config(path)
            return cls(
                tuple(facts["objects"]),
                dict(facts["superclass"]),
                tuple(facts["styles"]),
                tuple(facts["held_out"]),
                dict(facts["with_article"]),
                tuple(facts["evaluation_templates"]),
            )
        except NotFoundError:
            raise NotFoundError(f"{path} does not exist: expected the reference model's concepts.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path} is not a reference model's concepts.json: {error}") from error

    def prompt(self, thing: str, style: str, template: int = 0) -> str:
        """A prompt for an object in a style."""
        noun = self.article.get(thing, thing)
        return self.templates[template % len(self.templates)].replace("{object}", noun).replace("{style}", style)


@dataclass(frozen=True, slots=True)
class Question:
    """One picture and what a judge should say of it.

    Attributes:
        group: `forget`, `retain` or `held_out`; `shown` asks nothing.
        shot: prompt and seed.
        wanted: the label on each axis that counts, such as `{"object": "dog", "style": "ink"}`; in the group `forget`
            only what was erased.
        kind: how the prompt speaks of it: `direct`, `template`, `paraphrase`, or a word of the user's.
    """

    group: str
    shot: Shot
    wanted: Mapping[str, str]
    kind: str = DIRECT


Answer: TypeAlias = Mapping[str, str]
"""What a judge takes a picture for, by axis."""


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers before and after, of n.

    Attributes:
        group: which questions, see `Question.group`.
        axis: which of the judge's axes.
        n: pictures.
        before: how many of them were right before.
        after: how many after.
        both: how many before and after.
        kind: how the prompts speak of it; "" is in all ways.
        label: what was asked for; "" is any.
    """

    group: str
    axis: str
    n: int
    before: int
    after: int
    both: int
    kind: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return _NAMES.get((self.group, self.axis), f"{self.group.replace('_', ' ')} {self.axis}")


_NAMES: Final = {
    ("forget", "object"): "target object",
    ("forget", "style"): "target style",
    ("retain", "object"): "retained objects",
    ("retain", "style"): "retained styles",
    ("held_out", "object"): "held-out objects",
    ("held_out", "style"): "held-out styles",
}


def questions(subjects: Subjects, thing: str, style: str, *, rounds: int = 1) -> tuple[Question, ...]:
    """The pictures that judge the erasure of one object and one style; see `direct_questions`."""
    return make_direct_questions(subjects, (thing,), (style,), rounds=rounds)


def make_direct_questions(
    subjects: Subjects, things: Sequence[str], styles: Sequence[str], *, rounds: int = 1
) -> tuple[Question, ...]:
    """The pictures that judge the erasure of some objects and styles; `rounds` multiplies them.

    Seeds count up, so every picture starts from noise of its own, the same before and after.
    """
    held_out = [o for o in subjects.held_out if o not in things]
    kept = [o for o in subjects.objects if o not in things and o not in held_out]
    others = [s for s in subjects.styles if s not in styles] or list(subjects.styles)
    asked: list[tuple[str, str, str, tuple[str, ...]]] = []
    for thing in things:
        asked += [("forget", thing, s, ("object",)) for s in others] * (4 * rounds)
    for style in styles:
        asked += [("forget", o, style, ("style",)) for o in kept[: 16 * rounds]]
    asked += [("retain", o, others[(i + r) % len(others)], AXES) for r in range(2 * rounds) for i, o in enumerate(kept)]
    asked += [("held_out", o, s, AXES) for _ in range(3 * rounds) for o, s in product(held_out, others)]
    return tuple(
        Question(group, Shot(subjects.prompt(o, s, seed), seed), labels(o, s, axes))
        for seed, (group, o, s, axes) in enumerate(asked)
    )


def labels(thing: str, style: str, axes: Sequence[str] = AXES) -> dict[str, str]:
    """The labels of an object in a style, on the axes that count."""
    return {axis: label for axis, label in zip(AXES, (thing, style), strict=True) if axis in axes}


def scores(asked: Sequence[Question], before: Sequence[Answer], after: Sequence[Answer]) -> Iterator[Score]:
    """Accuracy per group and axis, in a fixed order; groups of which nothing was asked are left out."""
    found = {(q.group, axis) for q in asked for axis in q.wanted}
    order = [key for key in _NAMES if key in found]
    for group, axis in [*order, *sorted(found - set(order))]:
        yield count(asked, before, after, group=group, axis=axis)


def count(
    asked: Sequence[Question],
    before: Sequence[Answer],
    after: Sequence[Answer],
    *,
    group: str,
    axis: str,
    kind: str = "",
    label: str = "",
) -> Score:
    """The right answers of some of the questions; an empty kind or label takes all."""
    chosen = [
        (b.get(axis) == q.wanted[axis], a.get(axis) == q.wanted[axis])
        for q, b, a in zip(asked, before, after, strict=True)
        if q.group == group and axis in q.wanted and kind in {"", q.kind} and label in {"", q.wanted[axis]}
    ]
    before_right, after_right = sum(b for b, _ in chosen), sum(a for _, a in chosen)
    both = sum(b and a for b, a in chosen)
    return Score(group, axis, len(chosen), before_right, after_right, both, kind, label)
