"""Ridge regression inside a free space, as a sum with one term a concept.

With P the projector onto what nothing protects, T_i [d, n_i] the targets of concept i, D_i what is to be added to each,
G_i = T_i T_iᵀ / n_i and K the second moment of what should stay, the map

    M = Σ_i M_i,   M_i = (D_i T_iᵀ / n_i) P S⁻¹ P,   S = P (Σ_j G_j + K) P + λI

is the one that makes  Σ_i ‖M T_i − D_i‖² / n_i + tr(M K Mᵀ) + λ‖M‖²  the smallest. All concepts share one
factorisation, so a hundred cost what one does. Each M_i counts the other concepts among what should stay: it moves
them little, whether their patches are there or not.

Where little is too much, a share is held off a few directions H [d, k] exactly: of all maps with M_i H = 0 the one that
S puts nearest is

    M_i − M_i H (Hᵀ P S⁻¹ P H)⁻¹ Hᵀ P S⁻¹ P

(least squares with equality constraints: Björck, Numerical Methods for Least Squares Problems, 1996, §5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from rasura.patches.algebra.protected_subspace import count_for
from rasura.patches.erasers.columns import Columns

__all__ = ["LeastSquares", "cut_share"]


@dataclass(frozen=True, slots=True, eq=False)
class LeastSquares:
    """The shared factorisation, and what each concept asks for.

    Attributes:
        free: F [d, f] orthonormal, the range of P = F Fᵀ.
        lower: L [f, f] with L Lᵀ = Fᵀ S F.
        asked: (D_i T_iᵀ / n_i) F of each concept, transposed, [f, d].
    """

    free: torch.Tensor
    lower: torch.Tensor
    asked: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, free: torch.Tensor, concepts: Sequence[Columns], kept: torch.Tensor, ridge: float) -> Self:
        """Factorise.

        Args:
            free: F [d, f] orthonormal.
            concepts: targets and anchors of each.
            kept: K [d, d].
            ridge: λ as a share of the mean eigenvalue of the targets' free moments.
        """
        seen = [free.T @ columns.targets for columns in concepts]  # Y_i = Fᵀ T_i, [f, n_i]
        inner = torch.stack([Y @ Y.T / Y.shape[1] for Y in seen]).sum(0)  # [f, f]
        size = inner.shape[0]
        whole = inner + free.T @ kept @ free
        # Where neither targets nor what stays have anything, λ decides; the last term is for targets of no length.
        whole.diagonal().add_(ridge * float(torch.trace(inner)) / size + 1e-300)
        asked = tuple(
            Y @ (columns.anchors - columns.targets).T / Y.shape[1] for Y, columns in zip(seen, concepts, strict=True)
        )
        return cls(free, torch.linalg.cholesky((whole + whole.T) / 2), asked)

    def share(self, number: int, held: torch.Tensor | None = None) -> torch.Tensor:
        """M_i [d, d] of one concept.

        Args:
            number: which.
            held: H [d, k] linearly independent inside the free space, on which the share is 0; None: on nothing.
        """
        X = torch.cholesky_solve(self.asked[number], self.lower)  # [f, d]
        if held is not None:
            H = self.free.T @ held  # [f, k]
            Z = torch.cholesky_solve(H, self.lower)  # [f, k]
            X = X - Z @ torch.linalg.solve(H.T @ Z, H.T @ X)
        return X.T @ self.free.T


def cut_share(
    share: torch.Tensor, targets: torch.Tensor, roots: tuple[torch.Tensor, torch.Tensor], *, energy: float, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A [r, d] and Q [d, r] with Q A ≈ M in the directions of the outputs that carry its effect on the targets.

    Args:
        share: M [d, d].
        targets: T [d, n].
        roots: G^½ and its pseudo-inverse, G = Σ_l W_lᵀW_l; in this metric lengths are those of the outputs.
        energy: share of the effect that the rank must carry.
        limit: most detectors.
    """
    root, inverse = roots
    U, strength = _find_leading(root @ (share @ targets))  # U [d, min(d, n)]
    leading = U[:, : min(count_for(strength, energy), limit)]  # [d, r]
    return leading.T @ root @ share, inverse @ leading


def _find_leading(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular vectors and singular values of X [d, n], the strongest first.

    By the smaller of XᵀX and XXᵀ, in half the time of a singular value decomposition and less: what is weaker than 1e-8
    of the strongest is noise, and left out.
    """
    tall = matrix.shape[1] < matrix.shape[0]
    values, vectors = torch.linalg.eigh(matrix.T @ matrix if tall else matrix @ matrix.T)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)  # eigh sorts upwards
    sound = max(1, int((values > 1e-16 * values[0]).sum()))
    values, vectors = values[:sound], vectors[:, :sound]
    strength = values.sqrt()
    return (matrix @ vectors / strength.clamp_min(1e-300) if tall else vectors), strength
