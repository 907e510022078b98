"""SPEED's projector and its detector: what of the space is free, and the smallest edit that stays in it.

For a hard constraint ΔW P C2 = 0 the free space is what of the range of P is orthogonal to P C2, and the detector that
of plain ridge regression within it. A soft one leaves P as it is and bends the detector.
"""

from __future__ import annotations

import torch

from rasura.patches.algebra.protected_subspace import EXACT, NOISE, ProtectedBasis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.least_squares import detector
from rasura.patches.erasers.closed_form.speed_refinement import Refined


def protect(refined: Refined, null: torch.Tensor, lamb: float, rule: RankRule) -> ProtectedBasis:
    """The complement of P, or of P' for a hard constraint.

    Args:
        refined: moment of the retained vectors.
        null: C2 [d, k].
        lamb: softness; above 0, C2 is no part of the promise.
        rule: which directions of the moment are kept.
    """
    moment = refined.moment.mean  # [d, d]
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    values, vectors = values.flip(0), vectors.flip(1)  # the strongest first
    # below is rounding, which the rule must not count
    values = torch.where(values > NOISE * torch.trace(moment), values, torch.zeros_like(values))
    kept = min(rule.keep(values), int((values > 0).sum()))
    retained = ProtectedBasis(vectors[:, :kept].T.contiguous(), values[:kept], 0, rule, values)
    exact = _free_part(null, retained) if lamb == 0 else retained.rows[:0]
    rows = torch.cat([exact, retained.rows])  # invariants first, as in every basis
    # uᵀ M u of each row u: of an eigenvector its eigenvalue; and what the null prompt has along it
    own = torch.cat([((exact @ moment) * exact).sum(1), values[:kept]]).clamp(min=0)
    energy = own + (rows @ null).square().sum(1) / max(1, null.shape[1])
    return ProtectedBasis(rows, energy, int(exact.shape[0]), rule, values)


def _free_part(null: torch.Tensor, basis: ProtectedBasis) -> torch.Tensor:
    """Orthonormal rows that span P C2; what of it is float32 noise is left out."""
    if null.shape[1] == 0:
        return basis.rows[:0]
    left, values, _ = torch.linalg.svd(basis.project(null), full_matrices=False)
    found = left[:, values > EXACT * torch.linalg.matrix_norm(null, 2)]
    # once more out of the basis: the SVD costs a few digits
    rows: torch.Tensor = torch.linalg.qr(basis.project(found))[0].T.contiguous()
    return rows


def detect(
    targets: torch.Tensor, basis: ProtectedBasis, null: torch.Tensor, ridge: float, softness: float
) -> torch.Tensor:
    """A [N, d] float64.

    Args:
        targets: C1 [d, N].
        basis: the complement of P; of P', for a hard constraint.
        null: C2 [d, k].
        ridge: λ for sums.
        softness: μ for sums; 0: the basis holds C2 already.
    """
    A = detector(targets, basis.project, ridge)
    if softness == 0 or null.shape[1] == 0:
        return A
    free = basis.project(null)  # P C2 [d, k]
    SC2 = (free - A.T @ (targets.T @ free)) / ridge  # (C1C1ᵀ + λ)⁻¹ within P, on C2; Woodbury, [d, k]
    inner = null.T @ SC2 + softness * torch.eye(null.shape[1], dtype=torch.float64)  # [k, k]
    return basis.project((A - (A @ null) @ torch.linalg.solve(inner, SC2.T)).T).T
