"""The smallest map that erases many columns at once and disturbs little else: ridge regression under a bound.

In the free space, F [d, f] an orthonormal basis of it, with targets C, wanted changes D and N the second moment of
what must not be disturbed (words of the vocabulary, retained prompts), each relative to what it weighs itself:

    M(μ) = D Yᵀ (Y Yᵀ + λI + μ FᵀNF)⁻¹ Fᵀ      Y = FᵀC

so that the collateral  ‖W M N^½‖  falls as μ grows, and what is left of the targets grows. μ is the smallest of a
fixed ladder that keeps the collateral within the bound. In the basis that makes both matrices diagonal the collateral
of every μ is a sum over f numbers, so the ladder costs one decomposition. M is then cut to the leading directions of
what it does to the outputs, W M C = U S Vᵀ: a projection of the outputs, which can only lower the collateral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.types import ParamName

__all__ = ["Map", "Room", "cut_map", "measure_collateral", "measure_disturbance", "solve_bounded"]

_RUNG: Final = 2.0**0.25
"""From one μ of the ladder to the next: a fixed ladder, so that rounding noise cannot move μ a little."""
_RUNGS: Final = 800


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Where one concept may be erased, and what erasing may disturb.

    Attributes:
        free: F [d, f], orthonormal, the range of P.
        root: G^½ [d, d], G = Σ_l W_lᵀW_l: in this metric lengths are those of the outputs.
        inverse: its pseudo-inverse.
        around: moments of what is disturbed, by name; those of nobody's prompts are left out.
    """

    free: torch.Tensor
    root: torch.Tensor
    inverse: torch.Tensor
    around: Mapping[str, Moment]

    @property
    def disturbed(self) -> torch.Tensor:
        """Σ of what may be disturbed, each over what it weighs: Fᵀ N F, [f, f]."""
        total = torch.zeros(self.free.shape[1], self.free.shape[1], dtype=torch.float64)
        for moment in self.around.values():
            own = self.root @ moment.mean @ self.root
            total += self.free.T @ moment.mean @ self.free / torch.trace(own)
        return (total + total.T) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """M = Q A, and how much it disturbs.

    Attributes:
        A: detectors [r, d], rows in the range of P.
        Q: [d, r]; the response of a layer is W_l Q.
        collateral: ‖W M N^½‖ over all that may be disturbed.
    """

    A: torch.Tensor
    Q: torch.Tensor
    collateral: float

    @property
    def whole(self) -> torch.Tensor:
        """M [d, d]."""
        return self.Q @ self.A


def solve_bounded(room: Room, targets: torch.Tensor, change: torch.Tensor, *, ridge: float, bound: float) -> Map:
    """The map that takes the most from the targets among those of the ladder whose collateral is within the bound.

    Args:
        room: of the concept.
        targets: C [d, n].
        change: D [d, n], what is to be added to each.
        ridge: λ as a share of the mean squared length of the free targets.
        bound: the largest collateral.
    """
    free = room.free.T @ targets  # Y, [f, n]
    inner, size = free @ free.T, free.shape[0]
    seen = inner + (ridge * float(torch.trace(inner)) / size + 1e-300) * torch.eye(size, dtype=torch.float64)
    lower = torch.linalg.cholesky(seen)  # L Lᵀ = Y Yᵀ + λI
    half = torch.linalg.solve_triangular(lower, room.disturbed, upper=False)  # L⁻¹ N
    both = torch.linalg.solve_triangular(lower, half.T, upper=False)  # L⁻¹ N L⁻ᵀ
    harm, basis = torch.linalg.eigh((both + both.T) / 2)
    harm = harm.clamp(min=0)
    detectors = basis.T @ torch.linalg.solve_triangular(lower, room.free.T, upper=False)  # QᵀL⁻¹Fᵀ, [f, d]
    # D Yᵀ L⁻ᵀ Q: what each of these detectors answers, [d, f]
    response = (change @ free.T) @ torch.linalg.solve_triangular(lower.T, basis, upper=True)
    loud = (room.root @ response).square().sum(0)  # [f]
    mu = _climb(loud, harm, bound)
    damp = 1 / (1 + mu * harm)
    return Map(detectors * damp[:, None], response, _collateral(loud, harm, mu))


def _climb(loud: torch.Tensor, harm: torch.Tensor, bound: float) -> float:
    """The smallest μ of the ladder that keeps the bound; 0 where nothing is needed."""
    if _collateral(loud, harm, 0.0) <= bound:
        return 0.0
    least = 1e-6 / max(float(harm[-1]), 1e-300)
    low, high = 0, _RUNGS  # the collateral falls along the ladder
    while high - low > 1:
        middle = (low + high) // 2
        if _collateral(loud, harm, least * _RUNG**middle) <= bound:
            high = middle
        else:
            low = middle
    return float(least * _RUNG**high)


def _collateral(loud: torch.Tensor, harm: torch.Tensor, mu: float) -> float:
    return float((loud * harm / (1 + mu * harm).square()).sum().clamp(min=0).sqrt())


def cut_map(room: Room, found: Map, targets: torch.Tensor, change: torch.Tensor, *, left: float, limit: int) -> Map:
    """The map with the fewest detectors that leaves of the targets no more than this, or as little as it can.

    Args:
        room: of the concept.
        found: the whole map.
        targets: C [d, n].
        change: D [d, n].
        left: ‖W(D − MC)‖ / ‖W D‖ that is small enough; where the whole map leaves more, a tenth more than it does.
        limit: most detectors.
    """
    wanted = room.root @ change  # [d, n]
    made = (room.root @ found.Q) @ (found.A @ targets)  # H M C
    out, strength, _ = torch.linalg.svd(made, full_matrices=False)  # out [d, min(d, n)]
    asked = float(wanted.square().sum())
    whole = float((wanted - made).square().sum())
    # Each direction of the outputs that M answers in takes its own part away from what is left.
    parts = (out.T @ wanted).square().sum(1) - (out.T @ (wanted - made)).square().sum(1)
    remaining = asked - parts.cumsum(0)  # [min(d, n)]
    enough = max(left**2 * asked, 1.21 * whole)
    fits = (remaining <= enough).nonzero().flatten()
    rank = min(int(fits[0]) + 1 if fits.numel() else int(strength.numel()), limit, room.free.shape[1])
    leading = out[:, :rank]
    A = (leading.T @ room.root @ found.Q) @ found.A  # [r, d]
    Q = room.inverse @ leading
    return Map(A, Q, measure_collateral(room, A, Q))


def measure_collateral(room: Room, A: torch.Tensor, Q: torch.Tensor) -> float:
    """‖W M N^½‖ of M = Q A."""
    seen = A @ room.free  # [r, f]
    loud = (room.root @ Q).T @ (room.root @ Q)  # [r, r]
    return float(((seen @ room.disturbed @ seen.T) * loud).sum().clamp(min=0).sqrt())


def measure_disturbance(
    made: Mapping[ParamName, Increment], weights: Mapping[ParamName, torch.Tensor], around: Mapping[str, Moment]
) -> float:
    """The collateral of increments as they are written: ‖ΔW x‖/‖W x‖, over all that may be disturbed."""
    total = 0.0
    for moment in around.values():
        moved = present = 0.0
        for name, increment in made.items():
            A, B = increment.A.to(torch.float64), increment.B.to(torch.float64)
            moved += float(((A @ moment.mean @ A.T) * (B.T @ B)).sum())
            present += float(((weights[name] @ moment.mean) * weights[name]).sum())
        total += max(moved, 0.0) / present
    return float(total**0.5)
