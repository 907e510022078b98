"""The heat map of interference: rows and columns in the order of a clustering, colours by how far from the limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rasura.evaluation.plots.clustering import Matrix, Ordered, scale
from rasura.evaluation.plots.save_figure import INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

NUMBERS: Final = 16
"""Up to so many patches every cell shows its number."""
NAMES: Final = 64
"""Up to so many patches every row and column has its name; beyond, only the worst."""
WORST: Final = 24
CELLS: Final = 1000
"""Cells a side that a picture of this size can show; more are drawn as the largest of a square."""
_LETTERS: Final = 20


def draw_heat_map(axes: Axes, scale_axes: Axes, found: Ordered, names: Sequence[str], limit: float) -> None:
    """Draw the map and its colour scale, on which the limit is marked."""
    from matplotlib.colors import Normalize, TwoSlopeNorm

    low, high = scale(found.values, limit)
    marked = 0 < limit < math.inf
    middle = math.log10(limit) if marked else low
    norm: Normalize = TwoSlopeNorm(middle, low, high) if marked else Normalize(low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.clip(np.log10(coarsen(found.values, CELLS)), low, high)
    colours = _colours(marked=marked)
    count = len(names)
    ends = (-0.5, count - 0.5, count - 0.5, -0.5)
    image = axes.imshow(shown, cmap=colours, norm=norm, interpolation="nearest", aspect="equal", extent=ends)
    axes.set_facecolor("#b8b8b8")
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if count <= NUMBERS:
        _numbers(axes, found.values, shown, norm)
    if count <= NAMES:
        _all_names(axes, found, names)
    else:
        _worst_names(axes, found, names, limit)
    _blocks(axes, found)
    axes.set_xlabel("disturbed: q", color=INK)
    axes.set_ylabel("disturbing: p", color=INK, labelpad=4 if count <= NAMES else 112)
    _colour_scale(image, scale_axes, (low, high), limit if marked else None)


def coarsen(values: Matrix, most: int) -> Matrix:
    """The largest of every square of cells, at most so many a side: no bad pair may fall between pixels."""
    step = -(-len(values) // most)
    if step == 1:
        return values
    side = -(-len(values) // step)
    padded = np.full((side * step, side * step), -np.inf)
    padded[: len(values), : len(values)] = np.where(np.isnan(values), -np.inf, values)
    squares: Matrix = padded.reshape(side, step, side, step).max(axis=(1, 3))
    return np.where(squares == -np.inf, np.nan, squares)


def shorten_name(name: str, most: int = _LETTERS) -> str:
    """A name that fits beside a row: its middle left out, since phrases often differ at their ends."""
    head = most // 2
    return name if len(name) <= most else f"{name[:head].rstrip()}…{name[len(name) - most + head + 1 :].lstrip()}"


def number(value: float) -> str:
    """A share in about five characters."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if value == 0 or 0.0005 <= value < 99.5:  # noqa: PLR2004
        return f"{value:.3f}" if 0 < value < 0.0995 else f"{value:.2f}" if value else "0"  # noqa: PLR2004
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _colours(*, marked: bool) -> Colormap:
    """Cold and pale below the limit, warm above it; without a limit one scale."""
    from matplotlib.colors import LinearSegmentedColormap

    cold, warm = ["#f7f9fb", "#d5e2ec", "#8fb3cf"], ["#fdd49e", "#f16913", "#99000d"]
    if not marked:
        return LinearSegmentedColormap.from_list("interference", [*cold, "#2b6a99", "#08306b"])
    halves = [(0.0, cold[0]), (0.25, cold[1]), (0.5, cold[2]), (0.5, warm[0]), (0.75, warm[1]), (1.0, warm[2])]
    return LinearSegmentedColormap.from_list("interference", halves)


def _numbers(axes: Axes, values: Matrix, shown: Matrix, norm: Any) -> None:
    count = len(values)
    size = min(10.0, 110.0 / max(count, 8))
    for p in range(count):
        for q in range(count):
            if p != q:
                dark = float(norm(shown[p, q])) > 0.72  # noqa: PLR2004
                text = number(float(values[p, q]))
                axes.text(q, p, text, ha="center", va="center", fontsize=size, color="white" if dark else INK)


def _all_names(axes: Axes, found: Ordered, names: Sequence[str]) -> None:
    labels = [shorten_name(names[i]) for i in found.order]
    size = min(10.0, 330.0 / len(names))
    place = range(len(names))
    axes.set_xticks(place, labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(place, labels, fontsize=size, parse_math=False)


def _worst_names(axes: Axes, found: Ordered, names: Sequence[str], limit: float) -> None:
    """Beside the rows the names of the worst, apart from each other, with a thin line to the row of each."""
    count = len(names)
    axes.set_xticks([])
    axes.set_yticks([])
    rows = worst_rows(found.values, limit)
    gap = count / 42.0
    for row, place in zip(rows, spread(rows, gap, count - 1.0), strict=True):
        points = ((-0.5, row), (-0.012 * count, row), (-0.035 * count, place), (-0.045 * count, place))
        axes.plot(*zip(*points, strict=True), color=SOFT, linewidth=0.4, clip_on=False)
        text = shorten_name(names[found.order[row]])
        axes.text(-0.05 * count, place, text, ha="right", va="center", fontsize=7, clip_on=False, parse_math=False)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)


def worst_rows(values: Matrix, limit: float, most: int = WORST) -> list[int]:
    """Positions of the patches with the largest shares over the limit, as p or as q, ascending."""
    known = np.nan_to_num(values, nan=0.0, posinf=np.inf)
    worst = np.maximum(known.max(1), known.max(0))
    order = np.argsort(-worst, kind="stable")[:most]
    return sorted(int(i) for i in order if worst[i] > limit)


def spread(places: Sequence[float], gap: float, end: float) -> list[float]:
    """Ascending places moved as little as need be so that they lie `gap` apart in 0 … end, if they fit."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap) if found else place)
    limit = end
    for i in range(len(found) - 1, -1, -1):
        found[i] = min(found[i], limit)
        limit = found[i] - gap
    return found


def _blocks(axes: Axes, found: Ordered) -> None:
    from matplotlib.patches import Rectangle

    line = 0.9 if len(found.order) <= NAMES else 0.4
    for first, last in found.blocks:
        side = last - first + 1
        corner = (first - 0.5, first - 0.5)
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=INK, linewidth=line, clip_on=False))


def _colour_scale(image: Any, axes: Axes, ends: tuple[float, float], limit: float | None) -> None:
    figure = axes.figure
    bar = figure.colorbar(image, cax=axes, orientation="vertical", spacing="proportional")
    decades = [float(e) for e in range(math.ceil(ends[0]), math.floor(ends[1]) + 1)]
    if limit is not None:
        decades = [e for e in decades if abs(e - math.log10(limit)) > 0.2]  # noqa: PLR2004
    labels = [f"{10**e:g}" for e in decades]
    ticks = decades if limit is None else [*decades, math.log10(limit)]
    bar.set_ticks(ticks, labels=labels if limit is None else [*labels, f"limit {limit:g}"])
    if limit is not None:
        axes.axhline(math.log10(limit), color=INK, linewidth=1.5)
    bar.outline.set_visible(False)
    axes.set_title("share", fontsize=9, loc="left")
