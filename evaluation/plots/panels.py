"""The small panels beside the heat map: capacity, principal angles, the worst pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from rasura.evaluation.plots.clustering import Matrix
from rasura.evaluation.plots.heatmap import number, shorten_name
from rasura.evaluation.plots.save_figure import INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("#6b7a8f", "#8fb3cf", "#f16913", "#eef1f4")
_POINTS: Final = 400
"""More cosines than that are drawn as a line."""
_LISTED: Final = 10


def draw_capacity(axes: Axes, parts: Sequence[tuple[str, int]], width: int) -> None:
    """One bar of `width` dimensions, cut into named parts."""
    start = 0
    for (name, count), colour in zip(parts, _COLOURS, strict=True):
        axes.barh(
            0, count, left=start, height=0.9, color=colour, edgecolor=SOFT, linewidth=0.5, label=f"{name} {count}"
        )
        start += count
    axes.set_xlim(0, width)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.set_xticks([0, width], ["0", f"{width}"], fontsize=7.5)
    _bare(axes)
    axes.set_title("dimensions of the text embedding", fontsize=9, loc="left")
    axes.legend(
        ncols=2, fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(-0.02, -0.85), borderaxespad=0.0,
        handlelength=1.0, handleheight=1.0,
    )  # fmt: skip


def draw_cosines(axes: Axes, cosines: npt.NDArray[np.float64]) -> None:
    """Cosines of principal angles, the largest first; degrees on the right."""
    from matplotlib.ticker import MaxNLocator

    values = np.sort(np.clip(flatten_cosines(cosines), 0.0, 1.0))[::-1]
    places = np.arange(1, len(values) + 1)
    if len(values) <= _POINTS:
        axes.plot(places, values, color="#2b6a99", marker=".", markersize=4, linewidth=0.8)
        axes.set_xlim(0.5, len(values) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        chosen = np.unique(np.geomspace(1, len(values), _POINTS).astype(int)) - 1
        axes.plot(places[chosen], values[chosen], color="#2b6a99", linewidth=1.2)
        axes.set_xscale("log")
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.5, 1.0])
    right = axes.secondary_yaxis("right")
    degrees = (90, 60, 45, 30, 0)
    right.set_yticks([math.cos(math.radians(d)) for d in degrees], [f"{d}°" for d in degrees], fontsize=7)
    axes.set_title("cosines of principal angles, largest first", fontsize=9, loc="left")
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.tick_params(labelsize=7.5)
    _bare(axes)
    right.spines["right"].set_visible(False)


def flatten_cosines(cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[k]; of a symmetric [N, N] each pair once."""
    flat: npt.NDArray[np.float64] = cosines if cosines.ndim == 1 else cosines[np.triu_indices(len(cosines), 1)]
    return flat


def draw_worst(axes: Axes, matrix: Matrix, names: Sequence[str], limit: float) -> None:
    """The worst pairs by name, those over the limit in bold."""
    axes.set_axis_off()
    pairs = list_worst_pairs(matrix, _LISTED)
    over = count_over(matrix, limit)
    title = (
        "worst pairs" if math.isinf(limit) else f"{over:,} of {len(names) * (len(names) - 1):,} pairs over the limit"
    )
    axes.set_title(title, fontsize=9, loc="left")
    for line, (p, q, value) in enumerate(pairs):
        text = f"{shorten_name(names[p], 17)} → {shorten_name(names[q], 17)}"
        weight = "bold" if value > limit else "normal"
        y = 1.0 - (line + 0.5) / _LISTED
        axes.text(0.0, y, number(value), fontsize=8, va="center", weight=weight, transform=axes.transAxes)
        axes.text(0.14, y, text, fontsize=8, va="center", parse_math=False, transform=axes.transAxes)


def list_worst_pairs(matrix: Matrix, most: int) -> list[tuple[int, int, float]]:
    """The largest entries off the diagonal, NaN and 0 left out, the worst first."""
    values = np.nan_to_num(matrix, nan=0.0, posinf=np.inf)
    np.fill_diagonal(values, 0.0)
    order = np.argsort(-values, axis=None, kind="stable")[:most]
    places = [divmod(int(i), len(values)) for i in order]
    return [(p, q, float(values[p, q])) for p, q in places if values[p, q] > 0]


def count_over(matrix: Matrix, limit: float) -> int:
    """Ordered pairs over the limit."""
    values = np.nan_to_num(matrix, nan=0.0, posinf=np.inf)
    np.fill_diagonal(values, 0.0)
    return int((values > limit).sum())


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)
