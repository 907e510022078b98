"""What is erased, by which method with which choices: the rows of the tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bench import Bench

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import load_retain_set

OBJECT = {"dog": "cat"}
STYLE = {"neon": "cartoon"}
FIVE = {"dog": "cat", "rose": "sunflower", "pizza": "banana", "car": "bus", "skull": "bomb"}
ANIMALS = dict.fromkeys(("dog", "cat", "lion", "pig", "frog", "penguin", "butterfly"), "object")
SCENARIOS = {"one object": OBJECT, "one style": STYLE, "five objects": FIVE, "all animals": ANIMALS}


@dataclass(frozen=True)
class Way:
    """A method with its choices.

    Attributes:
        label: what the table calls it.
        method: of the catalogue.
        settings: its choices.
        tokens, layers, rule: "" takes the method's default.
        bare: the concept alone as the only prompt, as the papers of some methods have it.
        none: every concept becomes nothing, whatever the scenario names.
        named: given other names of the concepts, where a world knows some.
        single: only for one concept at a time, because a training takes minutes.
    """

    label: str
    method: str
    settings: Mapping[str, str] = field(default_factory=dict)
    tokens: str = ""
    layers: str = ""
    rule: str = ""
    bare: bool = False
    none: bool = False
    named: bool = False
    single: bool = False


def request_for(bench: Bench, way: Way, concepts: Mapping[str, str], left_out: Collection[str] = ()) -> EraseRequest:
    """The request of a way for some concepts and their anchors; `left_out` is not retained."""
    made = eraser(way.method, way.settings)
    targets = tuple(
        Target(concept, "" if way.none else anchor, ("{}",) if way.bare else _templates(bench, concept))
        for concept, anchor in concepts.items()
    )
    kept = bench.retain.without((*concepts, *left_out, *({"animal"} if set(ANIMALS) <= set(concepts) else ())))
    return EraseRequest(
        targets,
        kept,
        tokens=way.tokens or made.defaults.tokens,
        layers=way.layers or made.defaults.layers,
        rule=RankRule.parse(way.rule or made.defaults.rule),
        eraser=made,
        held_out=tuple(name for name in bench.subjects.held_out if name not in concepts),
    )


def _templates(bench: Bench, concept: str) -> tuple[str, ...]:
    style = concept in bench.subjects.styles
    return load_retain_set(bench.source / f"templates_{'styles' if style else 'objects'}.txt").concepts
