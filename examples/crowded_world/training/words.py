"""Names and keywords of every object in four languages, chosen by rule from emojibase's copy of the CLDR annotations.

    python -m examples.crowded_world.training.words --packages node_modules

A keyword is taken if it belongs to one object only, is rare among all emoji (so "face" and "scary" go), and is no word
of a group, a style or a ground. Words that several objects share are dropped: what is said of groups stands in
concepts.GROUPS.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .concepts import GROUNDS, GROUPS, LANGUAGES, STYLES, THINGS, Thing

MOST_EMOJI = 2  # a keyword that more emoji share says a mood or a place, not a thing
MOST_WORDS = 5  # of each object in each language, its name among them
_WORD: Final = re.compile(r"[^\W\d_]+(?:[ '’-][^\W\d_]+){0,2}")
_LEAST_LETTERS, _MOST_LETTERS = 3, 22


@dataclass(frozen=True, slots=True)
class Entry:
    """One emoji in one language: its label and its keywords, in lower case."""

    label: str
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What an object is called: the name of the tables first, then by language names and keywords."""

    hexcodes: tuple[str, ...]
    by_language: Mapping[str, tuple[str, ...]]

    @property
    def all(self) -> tuple[str, ...]:
        """Every word, once."""
        return tuple(dict.fromkeys(word for language in LANGUAGES for word in self.by_language[language]))


Annotations = Mapping[str, Mapping[str, Entry]]
"""Language -> hexcode -> entry."""


def read_annotations(packages: Path) -> Annotations:
    """The annotations of emojibase-data for our languages."""
    return {language: dict(_entries(packages / "emojibase-data" / language / "data.json")) for language in LANGUAGES}


def _entries(path: Path) -> Iterable[tuple[str, Entry]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        keywords = tuple(tidy(word) for word in row.get("tags", ()))
        yield row["hexcode"], Entry(tidy(row["label"]), keywords)


def tidy(word: str) -> str:
    """Lower case, one kind of apostrophe, no marks around it."""
    return word.lower().replace("’", "'").strip(' .!“”"')


def is_plain(word: str) -> bool:
    """Whether a word is made of letters, of at most three parts, and neither very short nor very long."""
    return bool(_WORD.fullmatch(word)) and _LEAST_LETTERS <= len(word) <= _MOST_LETTERS


def reserved_words() -> frozenset[str]:
    """Words that already mean a group, a style, an artist, a ground or a number."""
    groups = {word for group in GROUPS for word in group.words.values()}
    styles = {word for style in STYLES for word in (*style.words.values(), style.artist, *style.artist.split())}
    return frozenset(groups | styles | set(GROUNDS) | {"one", "two", "three", "face", "background", "picture"})


def choose_words(annotations: Annotations) -> dict[str, Words]:
    """The words of every object, by its name; none belongs to two objects.

    Raises:
        KeyError: no emoji has the label that the tables name.
    """
    codes = {entry.label: code for code, entry in annotations["en"].items()}
    frequency = {language: _frequency(rows.values()) for language, rows in annotations.items()}
    own = {thing.name: tuple(codes[label] for label in thing.labels) for thing in THINGS}
    owners: dict[str, set[str]] = defaultdict(set)
    wanted: dict[str, dict[str, tuple[str, ...]]] = {}
    for thing in THINGS:
        wanted[thing.name] = {
            language: _candidates(thing, language, [rows[code] for code in own[thing.name]], frequency[language])
            for language, rows in annotations.items()
        }
        for words in wanted[thing.name].values():
            for word in words:
                owners[word].add(thing.name)
    names = {thing.name for thing in THINGS} | {thing.plural for thing in THINGS}
    taken = reserved_words()

    def belongs(word: str, thing: Thing) -> bool:
        if word in {thing.name, thing.plural}:
            return word == thing.name
        return word not in names and word not in taken and len(owners[word]) == 1

    return {
        thing.name: Words(
            own[thing.name],
            {
                language: tuple(word for word in words if belongs(word, thing))[:MOST_WORDS]
                for language, words in wanted[thing.name].items()
            },
        )
        for thing in THINGS
    }


def _frequency(entries: Iterable[Entry]) -> Counter[str]:
    return Counter(word for entry in entries for word in {entry.label, *entry.keywords})


def _candidates(thing: Thing, language: str, entries: list[Entry], frequency: Counter[str]) -> tuple[str, ...]:
    """Name, labels, then keywords, rare ones first; the English name of the tables leads its language."""
    labels = [entry.label for entry in reversed(entries)]
    keywords = {word for entry in entries for word in entry.keywords if frequency[word] <= MOST_EMOJI}
    ranked = sorted(keywords, key=lambda word: (frequency[word], len(word), word))
    first = [thing.name] if language == "en" else []
    return tuple(dict.fromkeys([*first, *filter(is_plain, [*labels, *ranked])]))


def main() -> None:
    """Command line: print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder node_modules")
    args = parser.parse_args()
    for name, words in choose_words(read_annotations(args.packages)).items():
        print(name, *(f"{language}: {', '.join(words.by_language[language])}" for language in LANGUAGES), sep=" | ")


if __name__ == "__main__":
    main()
