"""Shares that leave each other's concepts alone as far as the composer asks for.

Least squares move a near neighbour a little: hamster's share moves what is erased of a dog by a tenth of it. Where a
share moves more of another concept's effect than a limit, in the composer's own measure

    pair(i, j) = ‖M_i T_j‖ / ‖M_j T_j‖   over all matrices together

the directions of T_j in which it does are taken, the strongest first, as many as bring the rest under the limit, and
the share is solved again with these held exactly. What is held for one neighbour moves others, so this is repeated.
Holding a direction takes room of this share alone, not of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from rasura.patches.algebra.protected_subspace import join_rows

__all__ = ["Factors", "part_shares"]

Factors = tuple[torch.Tensor, torch.Tensor]
"""A [r, d] and Q [d, r]: a share is Q A."""
_ROUNDS: Final = 12
_MARGIN: Final = 0.9
"""What is held again is held to so much of the limit: the others' effects shrink a little with it."""


def part_shares(
    solve: Callable[[int, torch.Tensor | None], Factors],
    targets: Sequence[torch.Tensor],
    root: torch.Tensor,
    free: torch.Tensor,
    limit: float,
) -> list[Factors]:
    """All shares, each moving at most `limit` of every other's effect, where that can be had in so many rounds.

    Args:
        solve: the share of a concept that is 0 on H [d, k].
        targets: T_j [d, n_j] of each.
        root: G^½ [d, d]: lengths are those of the outputs.
        free: F [d, f]: what shares may read.
        limit: most of another's effect.
    """
    count = len(targets)
    held: list[torch.Tensor | None] = [None] * count
    found = [solve(i, None) for i in range(count)]
    owner = torch.repeat_interleave(torch.arange(count), torch.tensor([T.shape[1] for T in targets]))
    everything = torch.cat(list(targets), 1)  # [d, Σn]
    for _ in range(_ROUNDS):
        effects = [torch.linalg.norm(_moved(found[j], targets[j], root)) for j in range(count)]
        crowded = False
        for i in range(count):
            moved = _moved(found[i], everything, root).square().sum(0)  # [Σn]
            energies = torch.zeros(count, dtype=moved.dtype).index_add_(0, owner, moved)  # ‖M_i T_j‖²
            over = [j for j in range(count) if j != i and float(energies[j].sqrt()) > limit * float(effects[j])]
            if over:
                crowded = True
                new = [_directions(found[i], targets[j], root, _MARGIN * limit * float(effects[j])) for j in over]
                held[i] = _join(held[i], new, free)
                found[i] = solve(i, held[i])
        if not crowded:
            break
    return found


def _moved(factors: Factors, targets: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    A, Q = factors
    return (root @ Q) @ (A @ targets)  # [d, r] [r, n]


def _directions(factors: Factors, targets: torch.Tensor, root: torch.Tensor, most: float) -> torch.Tensor:
    """[d, k]: combinations of the targets without which the share moves at most so much of them."""
    _, strength, right = torch.linalg.svd(_moved(factors, targets, root), full_matrices=False)  # right [k, n]
    rest = strength.square().flip(0).cumsum(0).flip(0)  # of this and all that follow
    count = int((rest > most * most).sum())
    directions: torch.Tensor = targets @ right[:count].T
    return directions


def _join(held: torch.Tensor | None, new: Sequence[torch.Tensor], free: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis [d, k] of everything that is held, inside the free space."""
    parts = [part.T for part in (held, *(free @ (free.T @ own) for own in new)) if part is not None]
    return join_rows(parts).T.contiguous()
