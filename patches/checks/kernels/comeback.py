"""The largest share of a concept's response that can come back, over a whole set of embeddings, in closed form.

A pair (x, a) is an embedding of the concept and what it was to become. In layers with the weights W and the increment
Δ (one below the other where they are several) the *response* that was to go is G = W(x − a), and what is *left* of it

    R = (W + Δ)x − W a = G + Δ x            share(x) = ‖R‖ / ‖G‖

0 is gone, 1 is all of it. Columns C [d, n] and A [d, n] give G and R [o, n]; a mixture α of them has the pair
(Cα, Aα), hence Gα and Rα: both are linear in α, and three sets have a largest share that needs no search.

**Span.** Every combination. With G = U·diag(s)·Vᵀ and α = V·diag(s)⁻¹·γ the response Gα = Uγ is as long as γ, so

    max share = max ‖R V diag(s)⁻¹ γ‖ / ‖γ‖ = σ₁(R V diag(s)⁻¹)      the root of the largest λ of RᵀR α = λ GᵀG α

attained at γ = the first right singular vector. Where s is next to nothing there is nothing to come back and the
quotient says nothing: the set is the combinations of the leading directions, those that carry a stated share of the
response ‖G‖² of all columns; the others are counted (`silent`) and left out, not divided by. Columns that were
compressed so that all X·C − Y·A keep their norms give the same number.

**Hull.** Every mixture with α ≥ 0, Σα = 1. For any unit vector p with ⟨g_i, p⟩ > 0 for every column g_i of G

    ‖Rα‖ / ‖Gα‖  ≤  Σ α_i ‖r_i‖ / Σ α_i ⟨g_i, p⟩  ≤  max_i ‖r_i‖ / ⟨g_i, p⟩

(the triangle inequality, Cauchy–Schwarz, and a mediant lies between its fractions). The best p points at the point of
the hull of the g_i/‖r_i‖ that is nearest to 0; any p proves a bound, so an iteration that stops early costs tightness
and never truth. No such p: 0 lies in that hull, the columns' responses cancel in some mixture, and no bound is given.
The largest share of a single column is in the set, so the true maximum lies between the two.

**Ball.** Every point within ρ of the hull, each against what its point of the hull was to become: the output moves by
(W + Δ)δ, at most ρσ with σ = ‖W + Δ‖₂, so that

    share  ≤  max_i (‖r_i‖ + ρσ) / ⟨g_i, p⟩     and it is below 1 for every   ρ < min_i (⟨g_i, p⟩ − ‖r_i‖) / σ

the *radius*. From one column, δ = ±ρ v along the first right singular vector reaches √(‖r‖² + 2ρ|⟨r, (W+Δ)v⟩| + ρ²σ²).

**Blind spot.** ΔW = B·A looks at an embedding through its detectors A alone. The nearest x to c with A x = A a, for
which the patch does what it does for a, is c − A⁺A(c − a): exact, ‖A⁺A(c − a)‖ away. There the layers tell x from a
as the base does, by W(x − a).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch

RESPONDING: Final = 0.999
"""Share of the response's energy that the directions of a span carry, the strongest first."""

_RANK: Final = 1e-9
"""Singular values below so much of the largest are rounding."""
_ROUNDS: Final = 2000
_GAP: Final = 1e-4
"""A hull's bound is that near to the best one, or the rounds are up."""


@dataclass(frozen=True, slots=True, eq=False)
class Pencil:
    """Columns as some layers see them; float64.

    Attributes:
        targets: C [d, n].
        anchors: A [d, n].
        asked: G [o, n], what was to go.
        left: R [o, n], what is left of it.
    """

    targets: torch.Tensor
    anchors: torch.Tensor
    asked: torch.Tensor
    left: torch.Tensor

    @classmethod
    def of(
        cls, targets: torch.Tensor, anchors: torch.Tensor, parts: Iterable[tuple[torch.Tensor, torch.Tensor]]
    ) -> Pencil:
        """Layers one below the other, from (G, R) of each; at most 2n rows are kept, with the same inner products."""
        n = targets.shape[1]
        found = torch.zeros(0, 2 * n, dtype=torch.float64)
        for asked, left in parts:
            found = torch.cat([found, torch.cat([asked, left], dim=1)])  # [o, 2n]
            if found.shape[0] > 2 * n:
                found = torch.linalg.qr(found, mode="r")[1]  # QᵀQ = 1: norms and products of columns stay
        return cls(targets, anchors, found[:, :n], found[:, n:])


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """The largest share over a span.

    Attributes:
        share: the maximum, attained.
        directions: dimensions of the set.
        silent: dimensions of the columns' span that are left out, because they hardly respond.
        mixture: [n] coefficients α of the columns at which it is attained.
    """

    share: float
    directions: int
    silent: int
    mixture: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Hull:
    """The largest share over a hull, and over a ball around it.

    Attributes:
        attained: largest share of a single column: a lower bound of the maximum.
        bound: no mixture has more; None where the columns' responses cancel.
        place: which column attains it.
        toward: [o] the unit vector that proves the bound; None likewise.
    """

    attained: float
    bound: float | None
    place: int
    toward: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Blind:
    """The nearest embedding that a patch treats as what its column was to become.

    Attributes:
        distance: from the column, in units of the embedding.
        multiple: the same, as a multiple of the distance between column and anchor.
        carries: share of the column's response that the base gives to it there.
        place: which column: the one with the smallest multiple.
    """

    distance: float
    multiple: float
    carries: float
    place: int


def find_span(pencil: Pencil, responding: float = RESPONDING) -> Span | None:
    """The largest share over the span of the columns, without what hardly responds; None where nothing responds.

    Args:
        pencil: the columns.
        responding: the directions that carry so much of the response's energy are the set; 1: all above rounding.
    """
    _, strength, right = torch.linalg.svd(pencil.asked, full_matrices=False)  # G = U·diag(s)·Vᵀ
    energy = strength.square()
    if not bool(energy.sum() > 0):
        return None
    before = energy.cumsum(0) - energy  # of those that are stronger
    chosen = (before < responding * energy.sum()) & (strength > _RANK * strength[0])
    mixtures = right[chosen].T / strength[chosen]  # [n, m] = V·diag(s)⁻¹: G @ mixtures is orthonormal
    _, shares, best = torch.linalg.svd(pencil.left @ mixtures, full_matrices=False)
    sizes = torch.linalg.svdvals(torch.cat([pencil.targets, pencil.anchors]))
    count, rank = int(chosen.sum()), int((sizes > _RANK * sizes[0]).sum())
    return Span(float(shares[0]), count, rank - count, mixtures @ best[0])


def find_hull(pencil: Pencil) -> Hull | None:
    """The largest share over mixtures of the columns; None where no column responds."""
    asked, left = _norms(pencil.asked), _norms(pencil.left)
    heard = asked > _RANK * asked.max()
    if not bool((asked > 0).any()):
        return None
    shares = torch.where(heard, left / asked.clamp_min(torch.finfo(torch.float64).tiny), -1.0)
    place = int(shares.argmax())
    toward = _separate(pencil.asked, left) if bool(heard.all()) else None
    bound = None
    if toward is not None:
        # never below what a column attains: rounding may put it there
        bound = max(float((left / (pencil.asked.T @ toward)).max()), float(shares[place]))
    return Hull(float(shares[place]), bound, place, toward)


def bound_ball(pencil: Pencil, hull: Hull, gain: float, radius: float) -> float | None:
    """No point within the radius of the hull has a larger share; None where there is no bound that float64 can say.

    Args:
        pencil: the columns.
        hull: of them.
        gain: σ = ‖W + Δ‖₂, or more.
        radius: ρ, in units of the embedding.
    """
    if hull.toward is None:
        return None
    found = float(((_norms(pencil.left) + radius * gain) / (pencil.asked.T @ hull.toward)).max())
    return found if math.isfinite(found) else None


def find_radius(pencil: Pencil, hull: Hull, gain: float) -> float:
    """Nothing nearer than this to the hull gets the whole response back; 0 where that is not proved."""
    if hull.toward is None or gain <= 0:
        return 0.0
    return max(0.0, float((pencil.asked.T @ hull.toward - _norms(pencil.left)).min()) / gain)


def find_blind(pencil: Pencil, detectors: torch.Tensor, gram: torch.Tensor) -> Blind | None:
    """Where patches no longer tell the concept from what it was to become; None where no column differs from that.

    Args:
        pencil: the columns.
        detectors: A [r, d] of all layers, of all patches.
        gram: Σ WᵀW of the same layers, [d, d].
    """
    apart = pencil.targets - pencil.anchors  # [d, n]
    sizes, asked = _norms(apart), _weigh(gram, apart)
    heard = (sizes > 0) & (asked > _RANK * asked.max())
    if not bool(heard.any()):
        return None
    _, strength, rows = torch.linalg.svd(detectors, full_matrices=False)
    rows = rows[strength > _RANK * strength[0]]  # [k, d] orthonormal rows that span what A sees
    seen = rows.T @ (rows @ apart)  # A⁺A(c − a)
    multiples = torch.where(heard, _norms(seen) / sizes.clamp_min(torch.finfo(torch.float64).tiny), torch.inf)
    place = int(multiples.argmin())
    carries = float(_weigh(gram, apart - seen)[place] / asked[place])
    return Blind(float(_norms(seen)[place]), float(multiples[place]), carries, place)


def _norms(columns: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.vector_norm(columns, dim=0)
    return found


def _weigh(gram: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """‖W x‖ of each column [n], from WᵀW; rounding may go below 0."""
    return (columns * (gram @ columns)).sum(0).clamp_min(0).sqrt()


def _separate(asked: torch.Tensor, left: torch.Tensor) -> torch.Tensor | None:
    """A unit vector p with ⟨g_i, p⟩ > 0 for all columns that makes max ‖r_i‖ / ⟨g_i, p⟩ small; None: none was found.

    Frank–Wolfe with pairwise steps towards the point of the hull of the g_i/‖r_i‖ that is nearest to 0.
    """
    scale = left.clamp_min(_RANK * max(float(left.max()), float(_norms(asked).max())))
    points = asked / scale  # [o, n]
    gram = points.T @ points  # [n, n]
    n = gram.shape[0]
    weights = torch.full((n,), 1.0 / n, dtype=torch.float64)
    slope = gram @ weights
    for _ in range(_ROUNDS):
        size = float(weights @ slope)
        nearest, farthest = int(slope.argmin()), int(torch.where(weights > 0, slope, -torch.inf).argmax())
        if float(slope[nearest]) >= (1 - _GAP) * size:
            break
        curve = float(gram[nearest, nearest] + gram[farthest, farthest] - 2 * gram[nearest, farthest])
        if curve <= 0:
            break
        step = min(float(weights[farthest]), float(slope[farthest] - slope[nearest]) / curve)
        weights[nearest] += step
        weights[farthest] = max(0.0, float(weights[farthest]) - step)
        slope += step * (gram[:, nearest] - gram[:, farthest])
    toward = points @ weights
    length = float(torch.linalg.vector_norm(toward))
    if length <= 0 or not bool((asked.T @ toward > 0).all()):
        return None
    return toward / length
