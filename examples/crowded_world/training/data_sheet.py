"""Write the data sheet: packages with licences, styles, groups, and every object with its words and sets of drawings.

python -m examples.crowded_world.training.data_sheet --packages node_modules --out examples/crowded_world/data-sheet.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from .concepts import CATEGORIES, GROUPS, HELD_OUT, HELD_OUT_STYLE, LANGUAGES, STYLES, THINGS
from .render import TEST_VENDOR, VENDORS, Drawings
from .words import Words, choose_words, read_annotations

_HEAD: Final = (
    "# Data sheet of the crowded world\n\n"
    "Written by `python -m examples.crowded_world.training.data_sheet --packages node_modules --out …`.\n"
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def package_rows(packages: Path) -> list[tuple[str, str, str]]:
    """Name, version and licence of each package, as it says itself."""
    rows = []
    for name in (*(f"@iconify-json/{vendor}" for vendor in VENDORS), "emojibase-data"):
        facts = json.loads((packages / name / "package.json").read_text(encoding="utf-8"))
        rows.append((f"`{name}`", facts["version"], facts["license"]))
    return rows


def sheet(packages: Path, words: Mapping[str, Words]) -> str:
    """The whole document."""
    drawings = Drawings(packages, words)
    tested = [index for index in range(len(THINGS)) if drawings.get(index, TEST_VENDOR) is not None]
    count = sum(len(entry.all) for entry in words.values())
    facts = [
        ("objects", str(len(THINGS))),
        ("categories", str(len(CATEGORIES))),
        ("styles", str(len(STYLES))),
        ("groups", str(len(GROUPS))),
        ("words of objects, four languages", str(count)),
        ("objects that no retain list names", ", ".join(HELD_OUT)),
        ("style that no retain list names", HELD_OUT_STYLE),
        (f"objects in the judge's test set ({TEST_VENDOR})", f"{len(tested)} of {len(THINGS)}"),
    ]
    styles = ((s.name, s.artist, *(s.words[k] for k in LANGUAGES[1:]), "yes" if s.grounded else "") for s in STYLES)
    groups = ((*(g.words[k] for k in LANGUAGES), str(len(g.members))) for g in GROUPS)
    things = (
        (thing.name, thing.category, *(", ".join(words[thing.name].by_language[k]) for k in LANGUAGES))
        for thing in THINGS
    )
    parts = [
        table(("fact", "value"), facts),
        "## Packages\n\n" + table(("package", "version", "licence"), package_rows(packages)),
        "## Styles\n\n" + table(("style", "invented artist", *LANGUAGES[1:], "on coloured grounds"), styles),
        "## Groups\n\n" + table((*LANGUAGES, "members"), groups),
        "## Objects\n\n" + table(("object", "category", *LANGUAGES), things),
    ]
    return "\n".join([_HEAD, *parts])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder node_modules")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    words = choose_words(read_annotations(args.packages))
    args.out.write_text(sheet(args.packages, words), encoding="utf-8")


if __name__ == "__main__":
    main()
