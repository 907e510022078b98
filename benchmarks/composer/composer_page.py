"""docs/composer.md from docs/composer/*.json: tables between markers, and the scatter plot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from bench import ROOT
from composer_scatter import scatter
from ranks import OBSERVED, PREDICTORS, Pair, correlation, lost, near, other, rank_misses, told_apart, with_style

from rasura.patches.checks.policy import DEFAULT_POLICY

FOLDER: Final = ROOT / "docs" / "composer"
PAGE: Final = ROOT / "docs" / "composer.md"
LIMIT: Final = DEFAULT_POLICY.pair
_EDGES: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, np.inf)
_NAMED: Final = 6


def write_page() -> None:
    """Every table that there are numbers for."""
    page = PAGE.read_text(encoding="utf-8")
    if rows := _kept("words"):
        page = _filled(page, "words", _words(rows))
    if study := _kept("study"):
        rows = study["pairs"]
        scatter(rows, FOLDER / "scatter.png")
        page = _filled(page, "concepts", _concepts(study["concepts"]))
        page = _filled(page, "ranks", _ranks(rows))
        page = _filled(page, "bins", _bins(rows))
        page = _filled(page, "misses", _misses(rows))
        page = _filled(page, "styles", _styles(study["styles"]))
    if rows := _kept("together"):
        page = _filled(page, "together", _together(rows))
    if machine := _kept("machine"):
        page = _filled(page, "machine", _machine(machine))
    PAGE.write_text(page, encoding="utf-8")


def _kept(name: str) -> Any:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _filled(page: str, name: str, lines: Iterator[str]) -> str:
    text = "\n".join(lines)
    pattern = rf"(<!-- table: {name} -->).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", page, flags=re.DOTALL)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _words(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines = [
        [
            row["word"],
            str(row["parts"]),
            f"{row['kin']} {row['cosine']:.2f}",
            f"{row['nearest']} {row['nearest_cosine']:.2f}",
            ", ".join(row["called"]),
        ]
        for row in rows
    ]
    yield from _table(
        ("Word", "parts", "its object", "nearest object", "four pictures, as the judge calls them"), lines
    )


def _concepts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines = []
    for row in rows:
        erased = row["erased"]
        shown = ", ".join(dict.fromkeys(erased["called"][1]))
        right = f"{erased['before']} of {erased['n']}", f"{erased['after']} of {erased['n']}"
        lines.append([row["concept"], row["anchor"], *right, shown, f"{float(row['residual']):.2f}"])
    yield from _table(("Concept", "becomes", "base draws it", "with its patch", "judge says", "residual"), lines)


def _ranks(rows: Sequence[Pair]) -> Iterator[str]:
    """ρ of every number with everything seen; of all, of objects that are not near, and of pairs with a style."""
    objects = [row for row in rows if not with_style(row) and not near(row)]
    groups = {"all": rows, "objects, no near pair": objects, "with a style": [row for row in rows if with_style(row)]}
    heads = [f"{name}, {title} (n {len(chosen)})" for title, chosen in groups.items() for name in PREDICTORS]
    lines = []
    for seen, of in OBSERVED.items():
        cells = [str(correlation(chosen, by, of)) for chosen in groups.values() for by in PREDICTORS.values()]
        lines.append([seen, *cells])
    yield from _table(("Spearman's ρ of what is seen with …", *heads), lines)


def _bins(rows: Sequence[Pair]) -> Iterator[str]:
    heads = (
        "pair(p, q)",
        "pairs",
        "{p}: pixels move",
        "{p}: pictures of q lost",
        "in how many pairs",
        "{p, q}: q drawn again",
        "{p, q}: something else than under {q}",
        "of it p's own concept",
    )
    lines = []
    for low, high in pairwise(_EDGES):
        chosen = [row for row in rows if low <= row["pair"] < high]
        before = sum(int(row["alone"]["before"]) for row in chosen)
        pictures = sum(int(row["both"]["n"]) for row in chosen)
        lines.append(
            [
                f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more",
                str(len(chosen)),
                f"{np.mean([row['alone']['change'] for row in chosen]):.1%}",
                f"{sum(map(lost, chosen))} of {before}",
                str(sum(lost(row) > 0 for row in chosen)),
                f"{sum(int(row['both']['after']) for row in chosen)} of {pictures}",
                f"{sum(map(other, chosen))} of {pictures}",
                str(sum(_returned(row) for row in chosen)),
            ]
        )
    yield from _table(heads, lines)


def _returned(row: Pair) -> int:
    """Pictures of q's prompts under {p, q} that show p, which is erased too, and did not under {q}."""
    before, after = row["both"]["called"]
    return sum(a == row["p"] and b != row["p"] for b, a in zip(before, after, strict=True))


def _misses(rows: Sequence[Pair]) -> Iterator[str]:
    harmed = sorted((row for row in rows if lost(row)), key=lambda row: float(row["pair"]))
    over = [row for row in rows if row["pair"] > LIMIT]
    unharmed = sum(not lost(row) for row in over)
    yield f"* The smallest number with which {{p}} lost a picture of q: {_said(harmed[0])}."
    yield (
        f"* Over the limit of {LIMIT:g} stand {len(over)} of {len(rows)} pairs; in {unharmed} of them {{p}} lost no "
        f"picture of q. Below it {sum(lost(row) > 0 for row in rows if row['pair'] <= LIMIT)} pairs lost one."
    )
    apart = ", ".join(f"{told_apart(rows, by):.3f} for {name}" for name, by in PREDICTORS.items())
    yield f"* A pair that lost a picture has a larger number than one that lost none with a probability of {apart}."
    calm = sorted((row for row in rows if not lost(row)), key=lambda row: -float(row["pair"]))[:_NAMED]
    yield f"* The largest numbers with which nothing was lost: {_list(calm)}."
    back = [row for row in rows if _returned(row)]
    shown = ", ".join(f"{row['p']} in prompts of {row['q']} ({_returned(row)} of {row['both']['n']})" for row in back)
    yield f"* With both applied, an erased concept showed where the other one was asked for: {shown}."
    for name, by in PREDICTORS.items():
        high, low = rank_misses(rows, by, OBSERVED["{p}: pixels of q's pictures move"], _NAMED)
        yield f"* Pixels moved far less than {name} ranks them: {_list(high)}; far more: {_list(low)}."


def _list(rows: Sequence[Pair]) -> str:
    return ", ".join(map(_said, rows))


def _said(row: Pair) -> str:
    return f"{row['p']} on {row['q']} ({row['pair']:.2f}; {row['alone']['change']:.1%})"


def _together(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    heads = (
        "Way",
        "check",
        "cross-talk max",
        "mean",
        "leak retained",
        "leak held out",
        "residual alone",
        "residual, all applied",
        "forget",
        "retain",
        "held out",
        "back when taken out",
        "pixels off",
    )
    for title in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == title]
        counts = next(row["counts"] for row in own if "counts" in row)
        n = ", ".join(f"{group.replace('_', ' ')} n {count}" for group, count in counts.items())
        yield f"\n**Eight concepts {title}** ({', '.join(own[0]['concepts'])}; {n})\n"
        yield from _table(heads, [_way(row) for row in own])


def _way(row: Mapping[str, Any]) -> list[str]:
    if "refused" in row:
        return [row["way"], f"not made: {row['refused']['message']}", *[""] * 11]
    pairs = [pair["pair"] for pair in row["pairs"]]
    residual = {what: [each[what] for each in row["residual"].values()] for what in ("alone", "all")}
    kept, before = (sum(back[key] for back in row["back"]) for key in ("kept", "before"))
    worst = max(row["pairs"], key=lambda pair: float(pair["pair"]))
    return [
        row["way"],
        _VERDICTS.get(row["verdict"], row["verdict"]),
        f"{max(pairs):.2g} ({worst['p']} on {worst['q']})",
        f"{np.mean(pairs):.2g}",
        f"{row['leak']['retained']:.3f}",
        f"{row['leak']['held_out']:.2f}",
        f"{np.mean(residual['alone']):.2f}, at most {max(residual['alone']):.2f}",
        f"{np.mean(residual['all']):.2f}, at most {max(residual['all']):.2f}",
        *(f"{row['summary'][key]:.1%}" for key in ("forget", "retain", "held_out")),
        f"{kept} of {before}{_not_back(row['back'])}",
        f"{np.mean([back['change'] for back in row['back']]):.1%}",
    ]


_VERDICTS: Final = {"Accepted": "accepted", "Refused": "refused", "NeedsRebase": "needs rebase"}


def _not_back(rows: Sequence[Mapping[str, Any]]) -> str:
    missing = [f"{row['concept']} {row['kept']}" for row in rows if row["kept"] < row["before"]]
    return f" ({', '.join(missing)})" if missing else ""


def _machine(facts: Mapping[str, str]) -> Iterator[str]:
    yield (
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} thread(s) for torch; "
        f"Python {facts['python']}, torch {facts['torch']}; commit {facts['commit']}."
    )


def _styles(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What an object's patch does to a style's targets, by whether these name the object."""
    lines = []
    for q in dict.fromkeys(row["q"] for row in rows):
        for what, title in (("named", "that name p"), ("unnamed", "that do not")):
            values = [row[what] for row in rows if row["q"] == q and "named" in row]
            lines.append([q, title, str(len(values)), f"{np.mean(values):.2f}", f"{max(values):.2f}"])
    yield from _table(("Style q", "its templates", "objects p", "mean pair(p, q)", "largest"), lines)
