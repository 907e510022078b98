"""One figure of how patches stand to each other: who disturbs whom, what room is left, how alike they look.

    interference_figure(InterferenceData(names, matrix, limit, capacity, cosines), Path("heatmap.svg"))

Needs matplotlib and scipy: pip install 'rasura[plot]'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from rasura.evaluation.plots.clustering import order_by_disturbance
from rasura.evaluation.plots.heatmap import NAMES, draw_heat_map, shorten_name
from rasura.evaluation.plots.panels import draw_capacity, draw_cosines, draw_worst, flatten_cosines
from rasura.evaluation.plots.save_figure import SOFT, check_plot, make_figure, save_figure
from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST: Final = 4000
"""Patches in one figure: clustering keeps all pairs in memory several times, 2 GB of this many."""

_SIDES: Final = ((8, 4.9), (12, 6.4), (MOST, 7.4))
_LEFT, _TOP, _RIGHT, _PANEL = 1.75, 0.45, 5.15, 3.3  # inches; the map stands between left and right


@dataclass(frozen=True, slots=True, eq=False)
class InterferenceData:
    """What the figure shows.

    Attributes:
        names: N concepts, in the order of the matrix; they may repeat.
        matrix: [N, N]; at [p, q] the share of q's effect that p disturbs. The diagonal is not looked at; NaN elsewhere
            is a pair that cannot be compared, infinity one without a measure.
        limit: most that is allowed; infinity where nothing is.
        capacity: dimensions of the text embedding and who holds them; None leaves the bar out.
        cosines: of principal angles: [k], or [N, N] the largest of each pair; None leaves the panel out.
    """

    names: tuple[str, ...]
    matrix: npt.NDArray[np.float64]
    limit: float
    capacity: Capacity | None = None
    cosines: npt.NDArray[np.float64] | None = None


def draw_interference(data: InterferenceData, path: Path) -> None:
    """Draw heat map, capacity and principal angles, and write them to a `.png` or `.svg` file.

    The same input and the same versions of matplotlib and scipy give the same bytes.

    Raises:
        InputError: no patch, too many, shapes that do not fit, another suffix, no such folder, no matplotlib.
        RegistryError: the file cannot be written; nothing half-done is left.
    """
    check_plot(path)
    _check(data)
    with make_figure(*_size(data)) as figure:
        _draw(figure, data)
        save_figure(figure, path)


def _draw(figure: Figure, data: InterferenceData) -> None:
    width, height = figure.get_size_inches()
    side = width - _LEFT - _RIGHT

    def box(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    found = order_by_disturbance(data.matrix, data.limit)
    y = height - _TOP
    heat, scale = box(_LEFT, y - side, side, side), box(_LEFT + side + 0.3, y - side, 0.16, side)
    draw_heat_map(heat, scale, found, data.names, data.limit)
    heat.set_title(_title(data), fontsize=11, loc="left")
    if found.blocks:
        note = "boxes: patches that disturb each other by more than the limit, on average"
        figure.text(_LEFT / width, 0.1 / height, note, fontsize=7.5, color=SOFT)
    x, span = width - _PANEL - 0.4, _PANEL
    draw_worst(box(x, y - 2.1, span, 2.1), data.matrix, data.names, data.limit)
    y -= 2.6
    if data.capacity is not None:
        bar = data.capacity
        parts = (
            ("null prompt", bar.invariants),
            ("retained", bar.retained),
            ("patches", bar.patches),
            ("free", bar.free),
        )
        draw_capacity(box(x, y - 0.3, span, 0.3), parts, bar.width)
        y -= 1.3
    if data.cosines is not None and flatten_cosines(data.cosines).size:
        draw_cosines(box(x, y - 1.2, span, 1.2), data.cosines)


def _title(data: InterferenceData) -> str:
    count = len(data.names)
    return f"What {count} {'patch disturbs' if count == 1 else 'patches disturb'} of each other's effect"


def _size(data: InterferenceData) -> tuple[float, float]:
    """Inches: the map grows with the numbers and names in it."""
    count = len(data.names)
    side = next(side for most, side in _SIDES if count <= most)
    below = 0.8 if count > NAMES else 0.75 + 0.09 * max(len(shorten_name(name)) for name in data.names)
    return _LEFT + side + _RIGHT, _TOP + side + below


def _check(data: InterferenceData) -> None:
    count = len(data.names)
    if not 1 <= count <= MOST:
        raise InputError(
            f"a plot of {count} patches: expected 1 to {MOST}", hint="rasura patch check ID ID --plot FILE.png"
        )
    if data.matrix.shape != (count, count):
        raise InputError(f"expected a matrix of {count} × {count} shares, got shape {data.matrix.shape}")
    if math.isnan(data.limit):
        raise InputError("expected a limit, got NaN")
