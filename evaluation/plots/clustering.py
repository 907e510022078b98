"""The order in which a table of interference is shown: patches that disturb each other stand beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = "npt.NDArray[np.float64]"

OPTIMAL: Final = 200
"""Up to so many patches the leaves of the clustering are put into their best order, which takes N³."""
_DECADES: Final = 3.0  # shown below the limit
_PART: Final = 300  # blocks of a smaller part of the side would be dots


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """A matrix in the order in which it is shown.

    Attributes:
        order: [N] which patch stands where.
        values: [N, N] in that order, its diagonal NaN.
        blocks: first and last position of patches that disturb each other, large enough to be seen.
    """

    order: tuple[int, ...]
    values: Matrix
    blocks: tuple[tuple[int, int], ...]


def order_by_disturbance(matrix: Matrix, limit: float) -> Ordered:
    """Put patches that disturb each other beside each other: average linkage on the logarithm of the worse share.

    Args:
        matrix: [N, N]; see `InterferenceData`.
        limit: what counts as disturbing, for the blocks.
    """
    values = matrix.astype(np.float64, copy=True)
    np.fill_diagonal(values, np.nan)
    if len(values) == 1:
        return Ordered((0,), values, ())
    order, groups = _clustered(values, limit)
    index = np.asarray(order)
    least = max(2, len(values) // _PART)
    return Ordered(order, values[np.ix_(index, index)], tuple(_runs([groups[i] for i in order], least)))


def _clustered(values: Matrix, limit: float) -> tuple[tuple[int, ...], list[int]]:
    """The order of the leaves, and the cluster of each patch."""
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    known = np.nan_to_num(values, nan=0.0, posinf=np.inf)
    worse = np.maximum(known, known.T)
    low, high = scale(values, limit)
    with np.errstate(divide="ignore"):
        height = np.clip((np.log10(worse) - low) / (high - low), 0.0, 1.0)
    distance = 1.0 - height
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=len(values) <= OPTIMAL)
    cut = 1.0 - (math.log10(limit) - low) / (high - low) if 0 < limit < math.inf else 0.0
    return tuple(int(i) for i in leaves_list(tree)), [int(c) for c in fcluster(tree, cut, "distance")]


def scale(values: Matrix, limit: float) -> tuple[float, float]:
    """Decimal logarithms of the least and of the largest share that have colours of their own."""
    finite = values[np.isfinite(values) & (values > 0)]
    top = max(1.0, float(finite.max(initial=0.0)))
    middle = limit if 0 < limit < math.inf else top / 100
    return math.log10(middle) - _DECADES, math.log10(max(top, middle * 10))


def _runs(groups: Sequence[int], least: int) -> Iterator[tuple[int, int]]:
    start = 0
    for stop in range(1, len(groups) + 1):
        if stop == len(groups) or groups[stop] != groups[start]:
            if stop - start >= least:
                yield start, stop - 1
            start = stop
