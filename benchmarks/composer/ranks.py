"""Rank correlations of the study, and what they leave out: intervals, and pairs that stand elsewhere than predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, spearmanr
from subjects import NEAR, STYLES

Pair = Mapping[str, Any]
Floats = npt.NDArray[np.float64]

RESAMPLED: Final = 2000
_SEED: Final = 1

PREDICTORS: Final[Mapping[str, Callable[[Pair], float]]] = {
    "pair(p, q)": lambda row: float(row["pair"]),
    "share(p, q)": lambda row: float(row["share"]),
}
OBSERVED: Final[Mapping[str, Callable[[Pair], float]]] = {
    "{p}: pixels of q's pictures move": lambda row: float(row["alone"]["change"]),
    "{p}: 1 − SSIM of q's pictures": lambda row: 1 - float(row["alone"]["ssim"]),
    "{p}: the judge's features of q's pictures move": lambda row: float(row["alone"]["features"]),
    "{p}: pictures of q lost": lambda row: float(lost(row)),
    "{p, q}: pixels of q's erased pictures move": lambda row: float(row["both"]["change"]),
    "{p, q}: q's erased pictures show something else": lambda row: float(other(row)),
}


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's ρ of n ordered pairs with a 95 % interval."""

    rho: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.rho:.2f} ({self.low:.2f} to {self.high:.2f})"


def lost(row: Pair) -> int:
    """Pictures of q that the base draws right and {p} does not."""
    return int(row["alone"]["before"]) - int(row["alone"]["kept"])


def other(row: Pair) -> int:
    """Pictures of q that {p, q} makes something else of than {q}."""
    before, after = row["both"]["called"]
    return sum(b != a for b, a in zip(before, after, strict=True))


def near(row: Pair) -> bool:
    """Whether both concepts are one to the text encoder."""
    return NEAR.get(row["p"], row["p"]) == NEAR.get(row["q"], row["q"])


def with_style(row: Pair) -> bool:
    """Whether one of both is a style."""
    return row["p"] in STYLES or row["q"] in STYLES


def told_apart(rows: Sequence[Pair], predicted: Callable[[Pair], float]) -> float:
    """How often a pair that lost a picture has the larger number than one that lost none (area under the ROC curve)."""
    harmed, calm = ([predicted(row) for row in rows if bool(lost(row)) is bad] for bad in (True, False))
    return float(np.mean([[x > y for y in calm] for x in harmed]))


def correlation(rows: Sequence[Pair], predicted: Callable[[Pair], float], seen: Callable[[Pair], float]) -> Correlation:
    """Spearman's ρ, and the middle 95 % of it over resampled concepts.

    The pairs of one concept are not independent of each other, so concepts are resampled with replacement, and with
    them every pair of two that differ, as often as it was drawn.
    """
    x, y = (np.array([of(row) for row in rows]) for of in (predicted, seen))
    names = sorted({row["q"] for row in rows} | {row["p"] for row in rows})
    place = {name: i for i, name in enumerate(names)}
    p, q = (np.array([place[row[side]] for row in rows]) for side in "pq")
    generator = np.random.default_rng(_SEED)
    found = []
    for _ in range(RESAMPLED):
        times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        index = np.repeat(np.arange(len(rows)), times[p] * times[q])
        if len(set(x[index])) > 1 and len(set(y[index])) > 1:
            found.append(_rho(x[index], y[index]))
    low, high = np.percentile(found, [2.5, 97.5])
    return Correlation(_rho(x, y), float(low), float(high), len(rows))


def rank_misses(
    rows: Sequence[Pair], predicted: Callable[[Pair], float], seen: Callable[[Pair], float], most: int
) -> tuple[list[Pair], list[Pair]]:
    """Pairs that stand much higher by the number than by the pictures, and much lower."""
    x, y = (rankdata([of(row) for row in rows]) for of in (predicted, seen))
    order = np.argsort(y - x, kind="stable")
    return [rows[int(i)] for i in order[:most]], [rows[int(i)] for i in order[::-1][:most]]


def _rho(x: Floats, y: Floats) -> float:
    return float(spearmanr(x, y).statistic)
