"""What lies beside the weights: what can be asked for, what an erasure should keep, prompts with a place in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .captions import EVALUATION
from .concepts import CATEGORIES, GROUNDS, GROUPS, HELD_OUT, HELD_OUT_STYLE, LANGUAGES, STYLES, THINGS
from .render import LAYOUTS
from .words import Words

_TEMPLATE_STYLES: Final = tuple(style for style in STYLES if style.name != HELD_OUT_STYLE)
_STYLE_CARRIERS: Final = ("cat", "car", "rose", "apple", "dagger", "palm tree", "penguin", "guitar", "robot", "house")


def describe_concepts(words: Mapping[str, Words]) -> dict[str, object]:
    """What the model can be asked for, in a form that programs read; `rasura evaluate` reads the first seven."""
    return {
        "objects": [thing.name for thing in THINGS],
        "superclass": {thing.name: thing.category for thing in THINGS},
        "superclasses": list(CATEGORIES),
        "styles": [style.name for style in STYLES],
        "held_out": list(HELD_OUT),
        "with_article": {thing.name: thing.with_article for thing in THINGS},
        "evaluation_templates": [t.replace("{n}", "{object}").replace("{s}", "{style}") for t in EVALUATION],
        "held_out_style": HELD_OUT_STYLE,
        "plural": {thing.name: thing.plural for thing in THINGS},
        "words": {name: {k: list(v) for k, v in entry.by_language.items()} for name, entry in words.items()},
        "groups": {group.words["en"]: {"words": group.words, "members": sorted(group.members)} for group in GROUPS},
        "artists": {style.name: style.artist for style in STYLES},
        "style_words": {style.name: style.words for style in STYLES},
        "grounds": list(GROUNDS),
        "layouts": {
            str(n): {"centres": [*map(list, centres)], "scale": scale} for n, (centres, scale) in LAYOUTS.items()
        },
        "sampling": {"steps": 20, "guidance_scale": 3.0, "height": 64, "width": 64},
    }


def list_retained() -> list[str]:
    """The concepts that an erasure should protect: all but those held out."""
    things = [thing.name for thing in THINGS if thing.name not in HELD_OUT]
    names = [name for style in _TEMPLATE_STYLES for name in (style.name, style.artist)]
    return [*things, *(group.words["en"] for group in GROUPS), *names]


def list_other_words(words: Mapping[str, Words]) -> dict[str, list[str]]:
    """For every object prompts with its other names, synonyms and translations: never the name of the tables."""
    return {
        name: [
            f"a picture of {word}"
            for language in LANGUAGES
            for word in entry.by_language[language]
            if name.casefold() not in word.casefold()
        ]
        for name, entry in words.items()
    }


def list_object_templates() -> list[str]:
    """Prompts in which an object stands."""
    bare = ["{}", "a {}", "the {}", "a picture of a {}", "an image of a {}"]
    return [
        *bare,
        *(f"a {{}} in {s.name} style" for s in _TEMPLATE_STYLES),
        *(f"a {{}} by {s.artist}" for s in _TEMPLATE_STYLES),
    ]


def list_style_templates() -> list[str]:
    """Prompts in which a style stands."""
    return ["{}", "{} style", "in {} style", "a {} drawing", *(f"a {name} in {{}} style" for name in _STYLE_CARRIERS)]


def write_beside(folder: Path, words: Mapping[str, Words]) -> None:
    """Write concepts.json, paraphrases.json, retain.txt and the templates into the folder of the model."""
    for name, value in (("concepts", describe_concepts(words)), ("paraphrases", list_other_words(words))):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lists = {
        "retain": list_retained(),
        "templates_objects": [
            "# Prompts in which an object stands, for `rasura erase --templates`.",
            *list_object_templates(),
        ],
        "templates_styles": [
            "# Prompts in which a style stands, for `rasura erase --templates`.",
            *list_style_templates(),
        ],
    }
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
