"""The small model of `robust.py`, and what it is asked for: an object by every kind of name, its kind, all else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question

__all__ = ["KINDS", "World", "ask"]

KINDS: Final = ("direct", "given name", "other name", "near", "retained", "held out")
_ASKED: Final = ("a nice picture of a {}", "a drawing of a {}", "a small {}", "the {}", "a {} in cartoon style")
_NAMED: Final = ("{}", "a picture of a {}")
_ARTICLES: Final = ("a ", "an ", "the ")
_SEEDS: Final = {kind: 7_000_000 * (i + 1) for i, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class World:
    """A small model that can be asked for objects, and what is known of them."""

    folder: Path
    facts: Mapping[str, Any]
    paraphrases: Mapping[str, Sequence[str]]

    @classmethod
    def open(cls, folder: Path) -> World:
        """Read what a folder says of its model."""
        path = folder / "paraphrases.json"
        return cls(
            folder,
            json.loads((folder / "concepts.json").read_text(encoding="utf-8")),
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {},
        )

    @property
    def category(self) -> Mapping[str, str]:
        """What kind of thing each object is."""
        found: Mapping[str, str] = self.facts.get("category") or self.facts["superclass"]
        return found

    def names(self, thing: str) -> list[str]:
        """What else an object is called, in every language in turn."""
        words = self.facts.get("words", {}).get(thing, {})
        longest = max(map(len, words.values()), default=0)
        turns = [own[i] for i in range(longest) for own in words.values() if i < len(own)]
        said = turns or [_bare(prompt) for prompt in self.paraphrases.get(thing, ())]
        return [name for name in dict.fromkeys(said) if name.casefold() != thing.casefold()]

    def anchor(self, thing: str) -> str:
        """The next object of the same kind that is retained."""
        kind: list[str] = [o for o in self.facts["objects"] if self.category[o] == self.category[thing]]
        others = [o for o in kind if o not in self.facts["held_out"]]
        return others[(others.index(thing) + 1) % len(others)] if thing in others else others[0]


def _bare(prompt: str) -> str:
    return next((prompt[len(article) :] for article in _ARTICLES if prompt.startswith(article)), prompt)


def ask(world: World, thing: str, most: int) -> tuple[Question, ...]:
    """Pictures of the object by every kind of name, of its kind, and of everything else."""
    names, objects, held_out = world.names(thing), world.facts["objects"], world.facts["held_out"]
    others = [o for o in objects if o != thing]
    near = [o for o in others if world.category[o] == world.category[thing] and o not in held_out]
    rest = [o for o in others if o not in near and o not in held_out]
    return tuple(
        Question("forget" if kind in KINDS[:3] else "retain", Shot(prompt, _SEEDS[kind] + i), {"object": shown}, kind)
        for kind, words, templates, wanted in (
            ("direct", [thing], _ASKED, thing),
            ("given name", names[::2], _NAMED, thing),
            ("other name", names[1::2], _NAMED, thing),
            ("near", near, _ASKED, None),
            ("retained", rest, _ASKED, None),
            ("held out", [o for o in held_out if o != thing], _ASKED, None),
        )
        for i, (prompt, shown) in enumerate(_prompts(words, templates, wanted, most))
    )


def _prompts(
    words: Sequence[str], templates: Sequence[str], wanted: str | None, most: int
) -> Iterator[tuple[str, str]]:
    """So many prompts, each with what it should show."""
    for i in range(most if words else 0):
        word = words[i % len(words)]
        template = templates[(i // len(words) + i) % len(templates)]
        yield template.replace("{}", word), wanted or word
