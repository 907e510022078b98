"""What every picture reads, in a few columns: the start of text, and the null prompt's other tokens by their centres.

SPEED (arXiv 2503.07392, section 3.3) asks the increment to leave these alone, C2 = [h_start, μ_1 … μ_k]: the null
prompt has 76 tokens after the first, and all of them would take as many dimensions.
"""

from __future__ import annotations

from typing import Final

import torch

ROUNDS: Final = 100


def compute_invariant_columns(null: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """C2 [d, 1 + count] float64.

    Args:
        null: the null prompt's tokens [77, d] float64, start of text first.
        count: how many centres stand for the others; more than there are distinct ones gives those.
        seed: of the first centres.
    """
    rows = torch.cat(
        [null[:1], compute_centroids(null[1:], count, seed)]
    )  # start of text is every prompt's: held by itself
    return rows.T.contiguous()


def compute_centroids(points: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Centres [≤ count, d] of points [m, d]: k-means++ and Lloyd's rounds until nothing moves; float64.

    The same seed gives the same centres. A cluster is never empty: its centre starts on a point.
    """
    centres = _spread(points, count, seed)
    owner = torch.full(points.shape[:1], -1)  # [m]: nobody's yet
    for _ in range(ROUNDS):
        if centres.shape[0] == 0:
            break
        # through a product, equal points would not have distance 0
        nearest = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        centres = torch.stack([_centre(points[owner == i], centre) for i, centre in enumerate(centres)])
    return centres


def _centre(own: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return own.mean(0) if own.shape[0] else before


def _spread(points: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre is drawn by its squared distance to the others."""
    generator = torch.Generator().manual_seed(seed)
    chosen: list[int] = []
    distance = torch.ones(points.shape[0], dtype=torch.float64)
    while len(chosen) < count and bool((distance > 0).any()):
        # a chosen point has distance 0 and is not drawn again
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
        distance = (points[:, None] - points[chosen][None]).square().sum(2).min(1).values
    return points[chosen]
