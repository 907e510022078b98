"""What is asked of the crowded world about some erased concepts: every way to speak of them, and all that should stay.

Sections and groups, of which each has its own row in the tables:

    forget      direct (a sentence never trained), synonym, translation (every second of these "given" to the ways that
                read names, the "other" never); for a style: direct, artist
    near        objects of the same category, and styles where a style is erased
    retain      all other objects that a retain list names
    held_out    objects of which no retain list speaks
    hypernym    "a picture of a pet" where a pet is erased: any other member is right
    composition pair (two kept objects), beside (an erased and a kept one: the kept is right), count ("two taxis")
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, and what is right to see: at every place any of these objects (None: anything), and a style or None.

    In the section `forget` what is right is what should no longer be seen.
    """

    section: str
    group: str
    prompt: str
    seed: int
    right: tuple[frozenset[str] | None, ...] = (None,)
    style: str | None = None


class Facts:
    """The concepts.json of a crowded world."""

    def __init__(self, folder: Path) -> None:
        self._facts: dict[str, Any] = json.loads((folder / "concepts.json").read_text(encoding="utf-8"))
        self.objects: tuple[str, ...] = tuple(self._facts["objects"])
        self.styles: tuple[str, ...] = tuple(self._facts["styles"])
        self.held_out = frozenset(self._facts["held_out"])
        self.category: Mapping[str, str] = self._facts["superclass"]
        self.article: Mapping[str, str] = self._facts["with_article"]
        self.plural: Mapping[str, str] = self._facts["plural"]
        self.artist: Mapping[str, str] = self._facts["artists"]
        self.words: Mapping[str, Mapping[str, Sequence[str]]] = self._facts["words"]

    def layout(self, count: int) -> tuple[Sequence[tuple[float, float]], float]:
        """Centres of one, two or three objects of a picture, and their size, in parts of its width."""
        layout = self._facts["layouts"][str(count)]
        return layout["centres"], layout["scale"]

    @cached_property
    def groups(self) -> Mapping[str, frozenset[str]]:
        """The members of each word for several objects."""
        return {name: frozenset(group["members"]) for name, group in self._facts["groups"].items()}

    def prompt(self, thing: str, style: str, template: int = 0) -> str:
        """A sentence that was never trained."""
        sentence: str = self._facts["evaluation_templates"][template % len(self._facts["evaluation_templates"])]
        return sentence.replace("{object}", self.article[thing]).replace("{style}", style)

    def names(self, concept: str) -> list[str]:
        """What else an object is called, in all languages; a style has the name of its artist."""
        if concept in self.styles:
            return [self.artist[concept]]
        spoken = (word for words in self.words[concept].values() for word in words)
        return list(dict.fromkeys(word for word in spoken if concept not in word.casefold()))

    def anchor(self, concept: str, erased: Iterable[str]) -> str:
        """What a concept becomes: its category, or "thing" where nothing of the category is left; a style a cartoon."""
        if concept in self.styles:
            return "cartoon"
        category = self.category[concept]
        return category if self.groups[category] - set(erased) else "thing"

    def emptied(self, erased: Iterable[str]) -> tuple[str, ...]:
        """Words for several objects of which nothing is left: nobody can retain them."""
        gone = set(erased)
        return tuple(name for name, members in self.groups.items() if members <= gone)


def make_asks(facts: Facts, concepts: Sequence[str], *, tries: int, others: int, seed: int = 5) -> tuple[Ask, ...]:
    """Everything that is asked about an erasure.

    Args:
        facts: the world.
        concepts: what is erased, objects or styles.
        tries: pictures of each way to speak of each concept; near neighbours get half as many.
        others: pictures of what should stay, held-out objects and compositions a third of it each.
        seed: of the choice; the same for every method, so that pictures of the base are drawn once.
    """
    rng = random.Random(seed)
    rows = [
        *_forgotten(facts, concepts, tries),
        *_near(facts, concepts, max(1, tries // 2), rng),
        *_kept(facts, concepts, others, rng),
        *_hypernyms(facts, concepts),
        *_composed(facts, concepts, others // 3, rng),
    ]
    return tuple(Ask(*row[:3], 90_000 + number, *row[3:]) for number, row in enumerate(rows))


_Row = tuple[str, str, str, tuple[frozenset[str] | None, ...], str | None]


def _forgotten(facts: Facts, concepts: Sequence[str], tries: int) -> Iterator[_Row]:
    styles = [style for style in facts.styles if style not in concepts]
    things = [thing for thing in facts.objects if thing not in concepts and thing not in facts.held_out]
    for concept in concepts:
        if concept in facts.styles:
            for number in range(4 * tries):
                thing = things[(7 * number) % len(things)]
                by_artist = f"{facts.article[thing]} by {facts.artist[concept]}"
                yield "forget", "direct", facts.prompt(thing, concept, number), (None,), concept
                yield "forget", "artist", by_artist, (None,), concept
            continue
        own = (frozenset({concept}),)
        for number in range(tries):
            yield "forget", "direct", facts.prompt(concept, styles[number % len(styles)], number), own, None
        given = facts.names(concept)[::2]
        for language, words in facts.words[concept].items():
            kind = "synonym" if language == "en" else "translation"
            for word in [w for w in words if concept not in w.casefold()]:
                group = f"{kind}, {'given' if word in given else 'other'}"
                for _ in range(max(1, tries // 4)):
                    yield "forget", group, f"a picture of {word}", own, None


def _near(facts: Facts, concepts: Sequence[str], tries: int, rng: random.Random) -> Iterator[_Row]:
    categories = {facts.category[concept] for concept in concepts if concept in facts.category}
    near = [
        o for o in facts.objects if facts.category[o] in categories and o not in concepts and o not in facts.held_out
    ]
    styles = [style for style in facts.styles if style not in concepts]
    for thing in rng.sample(near, min(len(near), 40)):
        for number in range(tries):
            style = styles[number % len(styles)]
            yield "near", "object", facts.prompt(thing, style, number), (frozenset({thing}),), style


def _kept(facts: Facts, concepts: Sequence[str], others: int, rng: random.Random) -> Iterator[_Row]:
    categories = {facts.category[concept] for concept in concepts if concept in facts.category}
    styles = [style for style in facts.styles if style not in concepts]
    far = [o for o in facts.objects if facts.category[o] not in categories and o not in facts.held_out]
    far = far or [o for o in facts.objects if o not in concepts and o not in facts.held_out]
    held_out = [o for o in facts.objects if o in facts.held_out and o not in concepts]
    for section, things, count in (("retain", far, others), ("held_out", held_out, others // 3)):
        for number in range(count):
            thing, style = rng.choice(things), rng.choice(styles)
            yield section, "object", facts.prompt(thing, style, number), (frozenset({thing}),), style


def _hypernyms(facts: Facts, concepts: Sequence[str]) -> Iterator[_Row]:
    gone = frozenset(concepts)
    for name, members in facts.groups.items():
        if members & gone and members - gone:
            for _ in range(2):
                yield "hypernym", "any other member", f"a picture of {_with_article(name)}", (members - gone,), None


def _composed(facts: Facts, concepts: Sequence[str], count: int, rng: random.Random) -> Iterator[_Row]:
    kept = [o for o in facts.objects if o not in concepts and o not in facts.held_out]
    erased = [concept for concept in concepts if concept in facts.objects]
    for _ in range(count):
        a, b = rng.sample(kept, 2)
        pair = f"{facts.article[a]} and {facts.article[b]}"
        yield "composition", "pair", pair, (frozenset({a}), frozenset({b})), None
        yield "composition", "count", f"two {facts.plural[a]}", (frozenset({a}), frozenset({a})), None
        if erased:
            beside = f"{facts.article[rng.choice(erased)]} and {facts.article[b]}"
            yield "composition", "beside", beside, (None, frozenset({b})), None


def _with_article(noun: str) -> str:
    return noun if noun == "food" else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
