"""The scatter plot of docs/composer.md: what stored data predict against what pictures show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ranks import OBSERVED, PREDICTORS, Pair, lost, near, other, with_style

from rasura.evaluation.plots.heatmap import spread
from rasura.evaluation.plots.save_figure import make_figure, save_figure
from rasura.patches.checks.policy import DEFAULT_POLICY

_NAMED_FROM: Final = 0.4
_ENDS: Final = ((5e-3, 12.0), (4e-4, 0.8))


def scatter(rows: Sequence[Pair], path: Path) -> None:
    """Predicted against seen: both numbers against {p}'s damage, and pair(p, q) against what is seen of {p, q}."""
    panels = (
        ("pair(p, q)", "{p}: pixels of q's pictures move"),
        ("share(p, q)", "{p}: pixels of q's pictures move"),
        ("pair(p, q)", "{p, q}: pixels of q's erased pictures move"),
    )
    with make_figure(14, 4.6) as figure:
        for place, (by, seen) in enumerate(panels):
            axes = figure.add_axes((0.05 + place * 0.325, 0.13, 0.28, 0.76))
            points = [(PREDICTORS[by](row), OBSERVED[seen](row)) for row in rows]
            harmed = [(lost(row) if place < len(panels) - 1 else other(row)) > 0 for row in rows]
            what = "picture of q lost" if place < len(panels) - 1 else "picture of something else"
            _points(axes, rows, points, harmed, what)
            if by.startswith("pair"):
                axes.axvline(DEFAULT_POLICY.pair, color="#202020", linewidth=0.8, linestyle=":")
            axes.set_xlabel(by + (" = ‖Δp Tq‖ / ‖Δq Tq‖" if by.startswith("pair") else " = ‖Δp Tq‖ / ‖W Tq‖"))
            axes.set_title(seen + ", share of the range", fontsize=9, loc="left")
        save_figure(figure, path)


def _points(
    axes: Any, rows: Sequence[Pair], points: Sequence[tuple[float, float]], harmed: Sequence[bool], what: str
) -> None:
    """Triangles are pairs with a style; where a picture was lost, the pair is named if it is not a near one."""
    for style, marker, kind in ((False, "o", "two objects"), (True, "^", "with a style")):
        for bad, colour, title in ((False, "#8fb3cf", ""), (True, "#c0300f", f", {what}")):
            chosen = [
                p for p, row, h in zip(points, rows, harmed, strict=True) if with_style(row) is style and h is bad
            ]
            x, y = zip(*chosen, strict=True) if chosen else ((), ())
            axes.scatter(x, y, s=16, color=colour, marker=marker, linewidths=0, label=kind + title)
    axes.set_xlim(*_ENDS[0])
    axes.set_ylim(*_ENDS[1])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(fontsize=7.5, loc="upper left", frameon=False)
    shown = [
        (*point, f"{row['p']} → {row['q']}")
        for point, row, bad in zip(points, rows, harmed, strict=True)
        if bad and not near(row) and row["pair"] > _NAMED_FROM
    ]
    _labels(axes, sorted(shown, key=lambda item: item[1]))


def _labels(axes: Any, shown: Sequence[tuple[float, float, str]]) -> None:
    """Names right of all points, apart from each other, with a line to the point of each."""
    places = spread([math.log10(y) for _, y, _ in shown], 0.1, math.log10(_ENDS[1][1]) - 0.1)
    for (x, y, text), place in zip(shown, places, strict=True):
        axes.plot((x, 2.3), (y, 10**place), color="#c0300f", linewidth=0.4)
        axes.text(2.4, 10**place, text, fontsize=6.5, va="center", color="#c0300f")
