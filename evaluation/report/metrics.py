"""The numbers of an evaluation; docs/evaluation.md defines each of them in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from skimage.metrics import structural_similarity

Z95: Final = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

_WINDOW: Final = 7  # pixels; the side of SSIM's window, and the least side of a picture that has one
_RIDGE: Final = 1e-6


def compute_wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, after Wilson 1927 (JASA 22, p. 209): sensible for 0 of n and n of n, too.

    Args:
        right: successes.
        n: tries; none gives (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if right == 0 else middle - half), (1.0 if right == n else middle + half)


def compute_harmonic_mean(values: Sequence[float]) -> float:
    """The harmonic mean n / Σ 1/v; 0 where one of them is 0: a single failure cannot be averaged away."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


@dataclass(frozen=True, slots=True)
class PictureChange:
    """How far pictures moved, drawn from the same noise.

    Attributes:
        n: pairs.
        ssim: mean structural similarity, 1 for equal pictures; None for pictures under 7 pixels.
        change: mean absolute difference of a pixel's channel, as a share of the whole range.
        identical: pairs that are equal to the bit.
    """

    n: int
    ssim: float | None
    change: float
    identical: int


def measure_change(before: Sequence[Image], after: Sequence[Image]) -> PictureChange:
    """Compare pictures pair by pair; equal sizes, at least one pair."""
    pairs = [(np.asarray(b.convert("RGB")), np.asarray(a.convert("RGB"))) for b, a in zip(before, after, strict=True)]
    moved = [float(np.abs(b.astype(np.int16) - a.astype(np.int16)).mean()) / 255 for b, a in pairs]
    likeness = [compute_ssim(b, a) for b, a in pairs] if min(pairs[0][0].shape[:2]) >= _WINDOW else []
    return PictureChange(
        len(pairs),
        sum(likeness) / len(likeness) if likeness else None,
        sum(moved) / len(moved),
        sum(bool(np.array_equal(b, a)) for b, a in pairs),
    )


def compute_ssim(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Structural similarity of two [h, w, 3] pictures (Wang et al. 2004), windows of 7 x 7, mean over channels."""
    measure: Callable[..., float] = structural_similarity  # it ships no types
    return float(measure(one, other, channel_axis=2, data_range=255, win_size=_WINDOW))


@dataclass(frozen=True, slots=True)
class Frechet:
    """A Fréchet distance, and how much to believe it.

    Attributes:
        distance: between the two normal distributions that fit the features.
        n: pictures on each side.
        width: d, features of a picture.
        regularised: whether a ridge was added, because n ≤ d pictures span no full covariance.
    """

    distance: float
    n: int
    width: int
    regularised: bool


def compute_frechet(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> Frechet | None:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½) of two feature sets [n, d] (Heusel et al. 2017, arXiv 1706.08500).

    The trace of the root is the sum of the roots of the eigenvalues of Σ₁^½·Σ₂·Σ₁^½, which is symmetric, so no complex
    number appears. With fewer than two pictures there is no covariance and the answer is None.
    """
    n, width = before.shape
    if n < 2:  # noqa: PLR2004
        return None
    first, second = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (before, after))
    if regularised := n <= width:
        ridge = _RIDGE * float(np.trace(first) + np.trace(second)) / (2 * width) * np.eye(width)
        first, second = first + ridge, second + ridge
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    gap = float(((before.mean(axis=0) - after.mean(axis=0)) ** 2).sum())
    return Frechet(max(0.0, gap + float(np.trace(first) + np.trace(second) - 2 * shared)), n, width, bool(regularised))
