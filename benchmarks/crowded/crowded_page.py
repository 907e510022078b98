"""docs/crowded.md from docs/crowded/*.json: the tables between their markers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from crowded_anchors import table_anchors
from crowded_bench import ROOT, share
from crowded_predict import table_prediction
from crowded_stages import kept

PAGE: Final = ROOT / "docs" / "crowded.md"
_COLUMNS: Final = (
    *(
        ("forget/direct", True),
        ("forget/synonym", True),
        ("forget/translation", True),
        (", other", True),
        ("near", False),
    ),
    *(("retain", False), ("held_out", False), ("hypernym", False), ("composition", False)),
)
_HEADS: Final = (
    *("Method", "direct", "synonyms", "translations", "not given", "near"),
    *("retain", "held out", "hypernyms", "composed", "check"),
)


def rewrite(page: str) -> str:
    """The page with every table as the numbers are."""
    for name, write in _TABLES.items():
        if rows := kept(name):
            page = _fill(page, name, "\n".join(write(rows)))
    return page


def _fill(page: str, name: str, text: str) -> str:
    pattern = rf"(<!-- table: {name} -->).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", page, flags=re.DOTALL)


def _tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    together: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        name = "one" if row["scenario"].startswith("one") and row["scenario"] != "one: neon" else row["scenario"]
        together[name].append(row)
    for name, chosen in together.items():
        yield f"\n**{_title(name, chosen)}**\n"
        yield "| " + " | ".join(_HEADS) + " |"
        yield "|" + "---|" * len(_HEADS)
        for way in dict.fromkeys(row["way"] for row in chosen):
            yield _line(way, [row for row in chosen if row["way"] == way], style=name == "one: neon")


def _title(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if name == "one":
        objects = dict.fromkeys(row["scenario"].removeprefix("one: ") for row in rows)
        return f"One object ({', '.join(objects)}{': summed' if len(objects) > 1 else ''})"
    return "One style (neon; synonyms: the artist's name)" if name == "one: neon" else f"{name.capitalize()} objects"


def _line(way: str, rows: Sequence[Mapping[str, Any]], *, style: bool) -> str:
    refused = [row["refused"]["code"] for row in rows if "refused" in row]
    counted = [row["counts"] for row in rows if "counts" in row]
    if not counted:
        return f"| {way} | refused: {', '.join(dict.fromkeys(refused))} |" + " |" * (len(_HEADS) - 2)
    cells = [
        share(_sum(counted, "forget/artist" if style and key == "forget/synonym" else key), lost=lost)
        for key, lost in _COLUMNS
    ]
    accepted = sum(row.get("accepted", False) for row in rows)
    note = f", {len(refused)} refused" if refused else ""
    return f"| {way} | {' | '.join(cells)} | {accepted} of {len(rows)}{note} |"


def _sum(counted: Sequence[Mapping[str, Mapping[str, int]]], key: str) -> dict[str, int] | None:
    """The counts of all rows, of one section or group; "forget/synonym" and ", other" stand for several groups."""
    found = [own for row in counted for name, own in row.items() if name == key or _part_of(name, key)]
    return {name: sum(row[name] for row in found) for name in ("n", "base", "patched", "both")} if found else None


def _part_of(name: str, key: str) -> bool:
    return name.startswith(f"{key}, ") or (key.startswith(",") and name.endswith(key))


def _attacks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for concept in dict.fromkeys(row["concept"] for row in rows):
        yield f"\n**{concept}**\n"
        yield from _attacks_on([row for row in rows if row["concept"] == concept])


def _attacks_on(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    kinds = list(dict.fromkeys(row["attack"] for row in rows))
    yield f"| Method | no attack | {' | '.join(kinds)} |"
    yield "|" + "---|" * (len(kinds) + 2)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = {row["attack"]: row for row in rows if row["way"] == way and "back" in row}
        once = next((row["none"] for row in own.values()), None)
        cells = [_brought_back(once), *(_brought_back(own[kind]["back"] if kind in own else None) for kind in kinds)]
        yield f"| {way} | {' | '.join(cells)} |"


def _brought_back(counts: Sequence[int] | None) -> str:
    """How many of the tries show the concept, in percent with the 95 % interval."""
    return share({"n": counts[1], "base": counts[1], "both": counts[0]} if counts else None)


_MOVES: Final = 130
_CURVE: Final = (
    *(("direct", "forget/direct", True), ("synonyms", "forget/synonym", True), ("near", "near", False)),
    *(("retain", "retain", False), ("held out", "held_out", False), ("restored", "restored", False)),
)


def _curve(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    for label, rows in courses.items():
        refused = sum("refused" in row for row in rows)
        yield f"\n**{label}** ({len(rows)} of {_MOVES} moves made, {refused} refused)\n"
        yield f"| takedowns | erased | {' | '.join(head for head, _, _ in _CURVE)} | CPU s a move |"
        yield "|" + "---|" * (len(_CURVE) + 3)
        since = 0
        for number, row in enumerate(rows):
            if "seen" in row:
                spent = [other["seconds"] for other in rows[since : number + 1] if "seconds" in other]
                cells = [share(_sum([row["seen"]], key), lost=lost) for _, key, lost in _CURVE]
                mean = sum(spent) / max(1, len(spent))
                yield f"| {row['takedowns']} | {row['erased']} | {' | '.join(cells)} | {mean:.1f} |"
                since = number + 1


_TABLES: Final[Mapping[str, Callable[[Any], Iterator[str]]]] = {
    "methods": _tables,
    "ablation": _tables,
    "anchors": table_anchors,
    "prediction": table_prediction,
    "attacks": _attacks,
    "curve": _curve,
}
"""What writes the table of each stage."""
