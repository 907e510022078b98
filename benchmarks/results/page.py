"""docs/results.md from docs/results/*.json: tables between markers, and the growth plot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import ROOT, kept

PAGE = ROOT / "docs" / "results.md"


def rewritten(page: str) -> str:
    """The page with every table as the numbers are."""
    for name, table in (
        ("methods", _methods),
        ("templates", _kinds),
        ("ablation", _ablation),
        ("growth", _growth),
        ("scenes", _scenes),
        ("attacks", _attacks),
    ):
        rows = kept(name if name != "templates" else "methods")
        if rows:
            page = _filled(page, name, "\n".join(table(rows)))
    return page


def _filled(page: str, name: str, text: str) -> str:
    pattern = rf"(<!-- table: {name} -->).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", page, flags=re.DOTALL)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _methods(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    heads = (
        "Method",
        "forget",
        "retain",
        "held out",
        "harmonic",
        "SSIM retained",
        "Fréchet retained",
        "rank",
        "KB",
        "s",
        "check",
    )
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        chosen = [row for row in rows if row["scenario"] == scenario]
        best = max((row["summary"].get("harmonic", 0) for row in chosen if "summary" in row), default=0)
        yield f"\n**{scenario.capitalize()}** ({_counts(chosen)})\n"
        yield from _table(heads, [_method(row, best) for row in chosen])


def _counts(rows: Sequence[Mapping[str, Any]]) -> str:
    row = next(row for row in rows if "rights" in row)
    n = {group: sum(s["n"] for s in row["rights"] if s["group"] == group) for group in ("forget", "retain", "held_out")}
    return ", ".join(f"{group.replace('_', ' ')} n {count}" for group, count in n.items())


def _method(row: Mapping[str, Any], best: float) -> list[str]:
    if "refused" in row:
        return [row["way"], f"refused: {row['refused']['code']}", *[""] * 9]
    summary, changes = row["summary"], row["changes"]
    name = f"**{row['way']}**" if summary.get("harmonic", 0) == best else row["way"]
    return [
        name + ("" if row["separable"] else " †"),
        *(_share(summary.get(key)) for key in ("forget", "retain", "held_out", "harmonic")),
        _number(changes["retain"]["ssim"], 3),
        _number(changes["retain"]["frechet"], 1),
        "+".join(dict.fromkeys(map(str, row["rank"]))),
        f"{row['bytes'] / 1000:.0f}",
        f"{row['seconds']:.1f}",
        "accepted" if row["accepted"] else "refused",
    ]


def _kinds(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Forget by the way the concept is spoken of, for one object."""
    kinds = ("direct", "template", "paraphrase")
    chosen = [row for row in rows if row["scenario"] == "one object" and "rights" in row]
    lines = []
    for row in chosen:
        found = {s["kind"]: s for s in row["rights"] if s["group"] == "forget"}
        cells = [f"{f['patched']} of {f['base']}" if (f := found.get(kind)) else "–" for kind in kinds]
        lines.append([row["way"], *cells])
    yield from _table(("Method", *(f"still drawn: {kind}" for kind in kinds)), lines)


def _ablation(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        yield f"\n**{scenario.capitalize()}**\n"
        heads = (
            "SPEED",
            "forget",
            "retain",
            "held out",
            "SSIM retained",
            "SSIM held out",
            "leak retained",
            "leak held out",
        )
        lines = []
        for row in (row for row in rows if row["scenario"] == scenario):
            if "refused" in row:
                lines.append([row["way"], "refused", *[""] * 6])
                continue
            lines.append(
                [
                    row["way"],
                    *(_share(row["summary"].get(key)) for key in ("forget", "retain", "held_out")),
                    *(_number(row["changes"][group]["ssim"], 3) for group in ("retain", "held_out")),
                    *(f"{max(map(float, row[key])):.3f}" for key in ("leak_retained", "leak_held_out")),
                ]
            )
        yield from _table(heads, lines)


def _growth(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    heads = ("Concepts", "Method", "s", "forget", "retain", "held out", "leak retained", "leak held out")
    lines = []
    for row in rows:
        if "refused" in row:
            lines.append([str(row["count"]), row["way"], "refused", *[""] * 5])
            continue
        lines.append(
            [
                str(row["count"]),
                row["way"],
                f"{row['seconds']:.1f}",
                *(_share(row["summary"].get(key)) for key in ("forget", "retain", "held_out")),
                *(f"{row['leak'][group]:.3f}" for group in ("retained", "held_out")),
            ]
        )
    plot(rows, ROOT / "docs" / "results" / "growth.png")
    yield from _table(heads, lines)


def _scenes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = [c["concept"] for c in rows[0]["concepts"]]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        yield f"\n**Scene {scene}**: pictures still right of 8 (identical to the base's to the bit)\n"
        lines = []
        for row in (row for row in rows if row["scene"] == scene):
            cells = [_scene_cell(c, c["concept"] in row["erased"]) for c in row["concepts"]]
            lines.append([row["what"], *cells])
        yield from _table(("Step", *names), lines)
        said = [(a, b, v) for row in rows if row["scene"] == scene for a, b, v in row["one_sided"]]
        if said:
            shown = dict.fromkeys(f"{a} on {b} ({v:.3f})" for a, b, v in said)
            yield f"\nReported one-sided by the check: {', '.join(shown)}."


def _scene_cell(concept: Mapping[str, Any], erased: bool) -> str:
    if "protected" not in concept:
        return "base"
    found = concept["protected"]
    text = f"{found['patched']} ({found['identical']})"
    return f"*{text}*" if erased else text


def _attacks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    kinds = [kind for kind in dict.fromkeys(row.get("attack") for row in rows) if kind not in (None, "none")]
    heads = ("Method", "no attack", *kinds, "suffix found")
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        if "refused" in own[0]:
            lines.append([way, "refused", *[""] * (len(kinds) + 1)])
            continue
        after = {row["attack"]: row for row in own if row["model"] == "patched"}
        cells = [f"{after[a]['found']} of {after[a]['n']}" for a in ("none", *kinds)]
        lines.append([way, *cells, f"`{after['suffix']['prompt']}`"])
    base = {row["attack"]: row for row in rows if row.get("model") == "base"}
    ceiling = [f"{base[a]['found']} of {base[a]['n']}" for a in ("none", *kinds)]
    yield from _table(heads, [["(base, the ceiling)", *ceiling, ""], *lines])


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Leak on retained and held-out prompts, accuracy on held-out ones, and seconds, against the number of concepts."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way and "refused" not in row]
        counts = [row["count"] for row in own]
        values = (
            [row["leak"]["retained"] for row in own],
            [row["leak"]["held_out"] for row in own],
            [100 * row["summary"].get("held_out", float("nan")) for row in own],
            [row["seconds"] for row in own],
        )
        for axis, value in zip(axes, values, strict=True):
            axis.plot(counts, value, marker="o", markersize=4, label=way)
    titles = ("leak on retained prompts", "leak on held-out prompts", "held-out pictures right, %", "seconds to solve")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("concepts erased")
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
