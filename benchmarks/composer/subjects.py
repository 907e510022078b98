"""What the composer's study erases: sixteen concepts, one retain list, four pictures of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench import REFERENCE, Bench

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet, load_retain_set

STYLES: Final = ("neon", "sketch")
NEAR: Final = {"big dog": "dog", "black cat": "cat", "red car": "car"}
"""Phrases that the text encoder puts beside an object, and the object: the only near neighbours that this model has.

It has seen no synonym: "puppy", "kitten", "taxi" and "knife" fall apart into word parts, lie near nothing, and are
drawn as something else altogether.
"""
ANCHORS: Final = {
    "dog": "frog",
    "big dog": "frog",
    "cat": "penguin",
    "black cat": "penguin",
    "lion": "penguin",
    "pig": "frog",
    "car": "airplane",
    "red car": "airplane",
    "bus": "airplane",
    "rose": "cactus",
    "apple": "banana",
    "strawberry": "banana",
    "pizza": "banana",
    "skull": "umbrella",
    "neon": "cartoon",
    "sketch": "cartoon",
}
"""Every concept of the study, and what it becomes."""
RETAINED: Final = (
    "pig", "pizza", "frog", "penguin", "butterfly", "sunflower", "cactus", "palm tree", "banana", "airplane",
    "umbrella", "dagger", "cigarette", "animal", "plant", "food", "vehicle", "object", "cartoon", "ink", "pixel",
)  # fmt: skip
"""The one retain list. It names two of the concepts, pig and pizza: all other patches leave these alone."""
HELD_OUT: Final = ("mushroom", "rocket", "guitar", "bomb")
SHOWN: Final = 4
"""Pictures of a concept."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A concept with its pictures.

    Attributes:
        name: the concept.
        questions: prompts that no patch was made with, seeds, and what the judge should say of the base's pictures.
    """

    name: str
    questions: tuple[Question, ...]

    @property
    def axis(self) -> str:
        """`style` or `object`."""
        return "style" if self.name in STYLES else "object"

    @property
    def label(self) -> str:
        """What the judge calls it."""
        return NEAR.get(self.name, self.name)


def subjects(bench: Bench) -> tuple[Subject, ...]:
    """Every concept of the study with its questions."""
    return tuple(Subject(name, _questions(bench, name, index)) for index, name in enumerate(ANCHORS))


def _questions(bench: Bench, name: str, index: int) -> tuple[Question, ...]:
    seed = 1000 + 10 * index
    if name in STYLES:
        prompts = [bench.subjects.prompt(o, name, i) for i, o in enumerate(("frog", "cactus", "airplane", "umbrella"))]
        return tuple(Question("forget", Shot(p, seed + i), {"style": name}) for i, p in enumerate(prompts))
    noun = f"a {name}" if name in NEAR else name
    prompts = [bench.subjects.prompt(noun, s, i) for i, s in enumerate(("cartoon", "ink", "pixel", "cartoon"))]
    label = NEAR.get(name, name)
    return tuple(Question("forget", Shot(p, seed + i), {"object": label}) for i, p in enumerate(prompts))


def target_of(concept: str) -> Target:
    """A concept as the study erases it."""
    kind = "styles" if concept in STYLES else "objects"
    return Target(concept, ANCHORS[concept], load_retain_set(REFERENCE / f"templates_{kind}.txt").concepts)


def request_of(concepts: Sequence[str]) -> EraseRequest:
    """One request for these concepts: null-space with its defaults, and the one retain list."""
    retained = RetainSet("retain.txt", RETAINED).without(concepts)
    return EraseRequest(tuple(target_of(c) for c in concepts), retained, held_out=HELD_OUT)


def independent(bench: Bench) -> dict[str, Patch]:
    """Every concept's patch from a request of its own: none knows of another."""
    return {name: bench.made(request_of([name])).patches[0] for name in ANCHORS}
