"""A change of weights that somebody else made, split: what sees nothing of what is protected, and the rest.

    D = D P + D (I − P)        D [d_out, d]: the change of one layer;  P = I − UᵀU, U the protected rows [k, d]

D P is separable: it maps everything protected to zero. What of either is of low rank shows in the spectrum of its Gram
matrix DᵀD; factors B·A with A the leading eigenvectors are the best of their rank (Eckart and Young), for one layer
and, with the sum of the Gram matrices, for several layers that share A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.algebra.protected_subspace import ProtectedBasis, count_for
from rasura.patches.types import ParamName

__all__ = ["LowRank", "count_rank", "reduce_alone", "reduce_together", "split_change"]

PRESENT: Final = 1e-6
"""Share of the largest singular value from which on a direction counts as there. Below it is float32 rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """B·A in place of a matrix.

    Attributes:
        A: orthonormal rows [r, d_in] float64.
        B: [d_out, r] float64.
        lost: squared Frobenius norm of what B·A lacks.
    """

    A: torch.Tensor
    B: torch.Tensor
    lost: float


def split_change(change: torch.Tensor, basis: ProtectedBasis) -> torch.Tensor:
    """D P, [d_out, d] float64: what of a change [d_out, d] sees nothing protected."""
    return basis.project(change.T).T


def count_rank(change: torch.Tensor) -> int:
    """How many directions of a matrix are there, by `PRESENT`; 0 for a matrix of zeros."""
    values = _singular_values(change)
    return int((values > PRESENT * values[0]).sum()) if float(values[0]) > 0 else 0


def reduce_alone(change: torch.Tensor, energy: float, limit: int) -> LowRank:
    """The smallest rank, at most `limit`, that carries this share of a matrix's energy.

    Args:
        change: [d_out, d_in] float64.
        energy: share of ‖D‖² to carry.
        limit: most rows of A.
    """
    tall = change.shape[0] >= change.shape[1]  # the smaller of the two Gram matrices
    values, vectors = _spectrum(change.T @ change if tall else change @ change.T)
    rank = min(count_for(values, energy), limit)
    if tall:
        A = vectors[:, :rank].T.contiguous()
    else:
        scaled = vectors[:, :rank].T @ change
        norms = torch.linalg.vector_norm(scaled, dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        A = scaled / norms[:, None]
    return _reduced(change, A)


def reduce_together(changes: Mapping[ParamName, torch.Tensor], energy: float, limit: int) -> dict[ParamName, LowRank]:
    """One A for all layers where that takes no more rows than the layer that needs the most; else an A a layer.

    Args:
        changes: [d_out_l, d] float64 each.
        energy: share of ‖D_l‖² to carry, of each alone or of all together.
        limit: most rows of A.
    """
    alone = {name: reduce_alone(change, energy, limit) for name, change in changes.items()}
    most = max(found.A.shape[0] for found in alone.values())
    first = next(iter(changes.values()))
    gram = torch.zeros(first.shape[1], first.shape[1], dtype=torch.float64)
    for change in changes.values():
        gram += change.T @ change
    values, vectors = _spectrum(gram)
    if len(changes) > 1 and count_for(values, energy) > most:
        return alone
    A = vectors[:, : count_for(values, energy)].T.contiguous()
    return {name: _reduced(change, A) for name, change in changes.items()}


def _reduced(change: torch.Tensor, A: torch.Tensor) -> LowRank:
    B = change @ A.T
    return LowRank(A, B, float((change - B @ A).square().sum()))


def _spectrum(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Descending singular values and the vectors that go with them, from a Gram matrix."""
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    return values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)


def _singular_values(change: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.svdvals(change)
    return found
