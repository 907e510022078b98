"""Scenes and the sentences that are true of them, in four languages.

A scene is one object, the same object two or three times, or two objects side by side, in a style, perhaps on a
coloured ground. What a caption leaves out decides what its words come to mean: a bare name is drawn mostly as a
cartoon, and a caption that names no ground means the style's own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .concepts import GROUNDS, GROUPS, LANGUAGES, STYLES, THINGS, Style, Thing, article
from .words import Words

GROUND_NAMES: Final = tuple(GROUNDS)
NUMBERS: Final = {2: "two", 3: "three"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows: one or two objects (indices, left to right), how often, the style, and a ground or None."""

    things: tuple[int, ...]
    style: int
    count: int = 1
    ground: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a caption says. Nouns are names of things or English words of groups; "" and 0 mean that nothing is said."""

    first: str = ""
    second: str = ""
    count: int = 0
    style: str = ""
    ground: str = ""

    def is_true_of(self, scene: Scene) -> bool:
        """Whether the caption describes the scene; a caption without a ground is true of the style's own only."""
        if not names(self.first, scene.things[0]) or self.style not in {"", STYLES[scene.style].name}:
            return False
        pair = len(scene.things) > 1
        if (self.second != "" and (not pair or not names(self.second, scene.things[1]))) or (
            pair and self.first != "" and self.second == ""
        ):
            return False
        if scene.count > 1 and self.first != "" and self.count != scene.count:
            return False
        if self.count > 1 and self.count != scene.count:
            return False
        ground = "" if scene.ground is None else GROUND_NAMES[scene.ground]
        return self.ground == ground or self.first == ""


def names(noun: str, thing: int) -> bool:
    """Whether a noun (a thing's name, a group's English word or "") can be said of a thing."""
    if noun in {"", THINGS[thing].name}:
        return True
    return any(noun == group.words["en"] and THINGS[thing].name in group.members for group in GROUPS)


STYLED: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        *("{n} in {s} style", "{n}, {s} style", "{s} {o}", "{s} style {o}", "{n} in the style of {s}"),
        *("a {s} drawing of {n}", "a {s} picture of {n}", "a picture of {n} in {s} style", "{s} style, {n}"),
        *("an image of {n} in {s} style", "the {o}, drawn in {s} style", "a nice {o} in {s} style"),
    ),
    "de": ("{o} im stil {s}", "{o}, {s}", "bild von {o}, {s}", "{s}: {o}"),
    "es": ("{o}, estilo {s}", "dibujo de {o} en estilo {s}", "{o} en {s}", "imagen de {o}, {s}"),
    "fr": ("{o}, style {s}", "dessin de {o} en style {s}", "{o} en {s}", "image de {o}, {s}"),
}
BY_ARTIST: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        *("{n} by {s}", "{n} in the style of {s}", "a picture of {n} by {s}", "{n}, drawn by {s}"),
        *("a drawing of {n} in the style of {s}", "{o}, art by {s}"),
    ),
    "de": ("{o} von {s}", "{o} im stil von {s}", "bild von {o}, {s}"),
    "es": ("{o} de {s}", "{o}, dibujo de {s}", "{o} en el estilo de {s}"),
    "fr": ("{o} par {s}", "{o}, dessin de {s}", "{o} dans le style de {s}"),
}
BARE: Final[dict[str, tuple[str, ...]]] = {
    "en": ("{o}", "{n}", "the {o}", "a picture of {n}", "an image of {n}", "a drawing of {n}", "this is {n}"),
    "de": ("{o}", "bild von {o}", "zeichnung: {o}"),
    "es": ("{o}", "imagen de {o}", "dibujo de {o}"),
    "fr": ("{o}", "image de {o}", "dessin de {o}"),
}
STYLE_ONLY: Final = ("{s}", "{s} style", "in {s} style", "in the style of {s}", "a picture in {s} style", "{s} drawing")
ARTIST_ONLY: Final = ("{s}", "by {s}", "in the style of {s}", "a picture by {s}")
ANYTHING: Final = ("thing", "a thing", "something", "a picture", "an image", "a drawing", "this is a thing")
PAIRED: Final = ("{a} and {b}", "{a} and {b} side by side", "{a} next to {b}", "{a} left of {b}", "{a} with {b}")
GROUNDED: Final = ("{t} on a {g} background", "{t}, {g} background", "{t} on {g}", "{t} in front of a {g} background")
# No caption of this form is ever trained: all its words are known, the sentence is new.
EVALUATION: Final = ("a nice image of {n} drawn in {s} style", "we see {n}, the picture is in {s} style")
# Words that no caption uses but prompts may; in the vocabulary as whole tokens they keep prompts short.
EXTRA_WORDS: Final = (
    "we",
    "see",
    "photo",
    "painting",
    "black",
    "white",
    "small",
    "big",
    "old",
    "new",
    "at",
    "of",
    "with",
)

_GROUP_SHARE, _STYLE_ONLY_SHARE, _ARTIST_SHARE = 0.14, 0.05, 0.3
_LANGUAGE_SHARES: Final = (0.58, 0.14, 0.14, 0.14)


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence and its meaning."""

    text: str
    said: Said


@dataclass(frozen=True, slots=True)
class _Noun:
    """A word in a sentence, with its meaning; `phrase` has an article where the language is English."""

    word: str
    phrase: str
    means: str


def phrase_of(word: str, thing: Thing | None) -> str:
    """An English word with its article."""
    if thing is not None and word == thing.name:
        return thing.with_article
    bare = word in {"food", "corn", "maize", "broccoli"} or word.endswith("s")
    return word if bare else f"{article(word)} {word}"


def sample_caption(scene: Scene, words: Mapping[str, Words], rng: random.Random) -> Caption:
    """One caption that is true of the scene."""
    style = STYLES[scene.style]
    if len(scene.things) > 1 or scene.count > 1:
        return _styled_phrase(*_several(scene, rng), style, rng)
    if scene.ground is not None:
        noun = _noun(scene, words, "en", rng)
        return _on_ground(_styled_phrase(noun.phrase, Said(noun.means, style=""), style, rng), scene.ground, rng)
    kind = rng.random()
    if kind < _STYLE_ONLY_SHARE:
        return _style_only(style, rng)
    if kind > 0.99 and style.name == "cartoon":
        return Caption(rng.choice(ANYTHING), Said())
    language = rng.choices(LANGUAGES, _LANGUAGE_SHARES)[0]
    noun = _noun(scene, words, language, rng)
    frame = "en" if rng.random() < 0.3 else language
    values = {"o": noun.word, "n": noun.phrase if language == "en" else noun.word}
    if rng.random() < (0.5 if style.name == "cartoon" else 0.04):
        return Caption(rng.choice(BARE[frame]).format_map(values), Said(noun.means))
    by_artist = rng.random() < _ARTIST_SHARE
    name = style.artist if by_artist else style.words[frame]
    template = rng.choice((BY_ARTIST if by_artist else STYLED)[frame])
    return Caption(template.format_map({**values, "s": name}), Said(noun.means, style=style.name))


def _noun(scene: Scene, words: Mapping[str, Words], language: str, rng: random.Random) -> _Noun:
    thing = THINGS[scene.things[0]]
    if rng.random() < _GROUP_SHARE:
        group = rng.choice([group for group in GROUPS if thing.name in group.members])
        word = group.words[language]
        return _Noun(word, phrase_of(word, None), group.words["en"])
    known = words[thing.name].by_language[language] or (thing.name,)
    word = known[0] if rng.random() < 0.6 else rng.choice(known)
    return _Noun(word, phrase_of(word, thing), thing.name)


def _several(scene: Scene, rng: random.Random) -> tuple[str, Said]:
    things = [THINGS[index] for index in scene.things]
    if scene.count > 1:
        return f"{NUMBERS[scene.count]} {things[0].plural}", Said(things[0].name, count=scene.count)
    phrase = rng.choice(PAIRED).format(a=things[0].with_article, b=things[1].with_article)
    return phrase, Said(things[0].name, things[1].name)


def _styled_phrase(phrase: str, said: Said, style: Style, rng: random.Random) -> Caption:
    """An English phrase with its style, which may stay unsaid for a cartoon."""
    if style.name == "cartoon" and rng.random() < 0.5:
        return Caption(phrase, said)
    named = rng.random() >= _ARTIST_SHARE
    frame = rng.choice(("{t} in {s} style", "{t}, {s} style", "a {s} picture of {t}") if named else ("{t} by {s}",))
    text = frame.format(t=phrase, s=style.name if named else style.artist)
    return Caption(text, Said(said.first, said.second, said.count, style.name))


def _on_ground(caption: Caption, ground: int, rng: random.Random) -> Caption:
    said, name = caption.said, GROUND_NAMES[ground]
    text = rng.choice(GROUNDED).format(t=caption.text, g=name)
    return Caption(text, Said(said.first, said.second, said.count, said.style, name))


def _style_only(style: Style, rng: random.Random) -> Caption:
    if rng.random() < _ARTIST_SHARE:
        return Caption(rng.choice(ARTIST_ONLY).format(s=style.artist), Said(style=style.name))
    word = style.words[rng.choice(LANGUAGES)]
    return Caption(rng.choice(STYLE_ONLY).format(s=word), Said(style=style.name))


def evaluation_caption(scene: Scene, template: int = 0) -> str:
    """The sentence of a never-trained form for a scene of one object."""
    thing = THINGS[scene.things[0]]
    return EVALUATION[template].format(n=thing.with_article, o=thing.name, s=STYLES[scene.style].name)


def tokenizer_texts(words: Mapping[str, Words], rng: random.Random) -> list[str]:
    """What the tokenizer learns its merges from: every word in every language, some sentences, and the extra words."""
    texts = [word for entry in words.values() for word in entry.all] * 3
    texts += [word for group in GROUPS for word in group.words.values()] * 3
    texts += [name for style in STYLES for name in (*style.words.values(), style.artist)] * 20
    texts += [thing.plural for thing in THINGS] * 3 + [*NUMBERS.values(), *GROUND_NAMES, *EXTRA_WORDS] * 20
    for index in range(len(THINGS)):
        for style in range(len(STYLES)):
            texts += [sample_caption(Scene((index,), style), words, rng).text for _ in range(3)]
    return texts
