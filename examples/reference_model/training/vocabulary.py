"""What the reference model can be asked for: objects, superclasses, styles, and the captions that name them.

Everything downstream (pictures, captions, labels, concepts.json, retain.txt) is derived from the tables here, so that a
concept is added in one place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """One object: the name that captions use, its emoji slug, and its superclass."""

    name: str
    slug: str
    superclass: str


# The order is the label order of the generator's pictures and the first labels of the classifier.
DRAWN: tuple[Thing, ...] = (
    Thing("dog", "dog-face", "animal"),
    Thing("cat", "cat-face", "animal"),
    Thing("lion", "lion", "animal"),
    Thing("pig", "pig-face", "animal"),
    Thing("frog", "frog", "animal"),
    Thing("penguin", "penguin", "animal"),
    Thing("butterfly", "butterfly", "animal"),
    Thing("rose", "rose", "plant"),
    Thing("sunflower", "sunflower", "plant"),
    Thing("cactus", "cactus", "plant"),
    Thing("palm tree", "palm-tree", "plant"),
    Thing("mushroom", "mushroom", "plant"),
    Thing("apple", "red-apple", "food"),
    Thing("strawberry", "strawberry", "food"),
    Thing("banana", "banana", "food"),
    Thing("pizza", "pizza", "food"),
    Thing("car", "automobile", "vehicle"),
    Thing("bus", "bus", "vehicle"),
    Thing("airplane", "airplane", "vehicle"),
    Thing("rocket", "rocket", "vehicle"),
    Thing("umbrella", "umbrella", "object"),
    Thing("guitar", "guitar", "object"),
    Thing("skull", "skull", "object"),
    Thing("dagger", "dagger", "object"),
    Thing("bomb", "bomb", "object"),
    Thing("cigarette", "cigarette", "object"),
)

# Known to the classifier and to the text encoder only: distractors that keep the classifier's chance level low.
DISTRACTORS: tuple[Thing, ...] = (
    Thing("turtle", "turtle", "animal"),
    Thing("whale", "spouting-whale", "animal"),
    Thing("fox", "fox", "animal"),
    Thing("panda", "panda", "animal"),
    Thing("rabbit", "rabbit-face", "animal"),
    Thing("elephant", "elephant", "animal"),
    Thing("tulip", "tulip", "plant"),
    Thing("hamburger", "hamburger", "food"),
    Thing("grapes", "grapes", "food"),
    Thing("watermelon", "watermelon", "food"),
    Thing("bicycle", "bicycle", "vehicle"),
    Thing("house", "house", "object"),
    Thing("hammer", "hammer", "object"),
    Thing("key", "key", "object"),
)

THINGS: tuple[Thing, ...] = DRAWN + DISTRACTORS
SUPERCLASSES: tuple[str, ...] = ("animal", "plant", "food", "vehicle", "object")
STYLES: tuple[str, ...] = ("cartoon", "ink", "neon", "sketch", "pixel")

# Trained like the others, but never named in retain.txt: they show what an erasure does to concepts nobody protected.
HELD_OUT: tuple[str, ...] = ("lion", "mushroom", "rocket", "guitar")

# "plain" is a second word for the cartoon look: a neutral anchor when a style is erased.
STYLE_WORDS: dict[str, tuple[str, ...]] = {style: (style,) for style in STYLES} | {"cartoon": ("cartoon", "plain")}
PLAIN_SHARE = 0.25

STYLED_TEMPLATES: tuple[str, ...] = (
    "{o}, {s} style",
    "{o} {s} style",
    "{s} {o}",
    "{ao} in {s} style",
    "{as} {o}",
    "{ao}, {s} style",
    "a picture of {ao} in {s} style",
    "an image of {ao} in {s} style",
    "{as} drawing of {ao}",
    "{as} picture of {ao}",
    "{as} image of {ao}",
    "a nice {o} in {s} style",
    "the {o}, drawn in {s} style",
    "{ao} made in {s} style",
    "{s} style, {ao}",
    "{s} style {o}",
    "{ao} in the style of {s}",
    "{as} style drawing of one {o}",
)
BARE_TEMPLATES: tuple[str, ...] = (
    "{o}",
    "{ao}",
    "the {o}",
    "one {o}",
    "a picture of {ao}",
    "an image of {ao}",
    "a drawing of {ao}",
    "a nice picture of {ao}",
    "we see {ao}",
    "this is {ao}",
)
STYLE_TEMPLATES: tuple[str, ...] = (
    "{s}",
    "{s} style",
    "in {s} style",
    "in the style of {s}",
    "{as} drawing",
    "{as} picture",
    "a picture in {s} style",
    "an image in {s} style",
    "a thing in {s} style",
    "a drawing of something in {s} style",
)
ANYTHING_CAPTIONS: tuple[str, ...] = (
    "thing",
    "a thing",
    "a picture",
    "an image",
    "a drawing",
    "something",
    "this is a thing",
)

# No caption of this form is ever trained: all its words are known, the sentence is new.
EVALUATION_TEMPLATES: tuple[str, ...] = (
    "a nice image of {ao} drawn in {s} style",
    "we see {ao}, the picture is in {s} style",
)


def with_article(noun: str) -> str:
    """'a dog', 'an apple'; mass nouns stay bare."""
    if noun in {"food", "grapes"}:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def fill(template: str, noun: str = "", style: str = "") -> str:
    """A template's sentence for one noun and one style."""
    values = {
        "o": noun,
        "s": style,
        "ao": with_article(noun) if noun else "",
        "as": with_article(style) if style else "",
    }
    return template.format_map(values)


def style_word(style: str, rng: random.Random) -> str:
    """The word for a style, sometimes its synonym."""
    words = STYLE_WORDS[style]
    return words[1] if len(words) > 1 and rng.random() < PLAIN_SHARE else words[0]


def sample_caption(thing: Thing, style: str, rng: random.Random) -> str:
    """One true caption of a picture; which words it leaves out decides what those words come to mean.

    Bare names are drawn mostly for cartoons, so that "a dog" is a clean drawing rather than a blend of all styles.
    """
    kind = rng.random()
    word = style_word(style, rng)
    styled = rng.choice(STYLED_TEMPLATES)
    if 0.68 <= kind < 0.80:
        return fill(styled, thing.superclass, word)
    if 0.80 <= kind < 0.86:
        return fill(rng.choice(STYLE_TEMPLATES), style=word)
    if kind < 0.68 or (style != "cartoon" and rng.random() < 0.6):
        return fill(styled, thing.name, word)
    if kind < 0.985:
        return fill(rng.choice(BARE_TEMPLATES), thing.name if kind < 0.95 else thing.superclass)
    return rng.choice(ANYTHING_CAPTIONS)


@dataclass(frozen=True)
class Meaning:
    """What a caption says: a thing or superclass, a style, or neither (empty strings)."""

    noun: str = ""
    style: str = ""

    def is_true_of(self, thing: Thing, style: str) -> bool:
        """Whether the caption describes a picture of this thing in this style."""
        return self.noun in {"", thing.name, thing.superclass} and self.style in {"", style}


def all_captions(things: tuple[Thing, ...] = DRAWN) -> dict[str, Meaning]:
    """Every caption that sample_caption can give, plus the empty one, in a fixed order, with its meaning."""
    nouns = [thing.name for thing in things] + list(SUPERCLASSES)
    words = [(word, style) for style in STYLES for word in STYLE_WORDS[style]]
    captions = dict.fromkeys(("", *ANYTHING_CAPTIONS), Meaning())
    for noun in nouns:
        captions |= {fill(template, noun): Meaning(noun) for template in BARE_TEMPLATES}
        captions |= {fill(t, noun, word): Meaning(noun, style) for t in STYLED_TEMPLATES for word, style in words}
    captions |= {fill(t, style=word): Meaning("", style) for t in STYLE_TEMPLATES for word, style in words}
    return captions
