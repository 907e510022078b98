"""Shares that leave each other's concepts alone as far as the composer asks for.

Least squares move a near neighbour a little: hamster's share moves what is erased of a dog by a tenth of it. Where a
share moves more of another concept's effect than a limit, in the composer's own measure

    pair(i, j) = ‖M_i T_j‖ / ‖M_j T_j‖   over all matrices together

the directions of T_j in which it does are taken, the strongest first, as many as bring the rest under the limit, and
the share is solved again with these held exactly. What is held for one neighbour moves others, so this is repeated.
Holding a direction takes room of this share alone, not of all. Of many concepts with many names the others' directions
may be all that there are: a share that would lose half of its own effect is left as it was, and the composer says what
it moves.
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
_LEAST: Final = 0.5
"""Share of its own effect, with nothing held, that a share keeps."""


def part_shares(
    solve: Callable[[int, torch.Tensor | None], Factors],
    targets: Sequence[torch.Tensor],
    root: torch.Tensor,
    free: torch.Tensor,
    limit: float,
) -> list[Factors]:
    """All shares, each moving at most `limit` of every other's effect, where that can be had in so many rounds.

    Where it cannot, a share keeps half of its effect at least: one of nothing would disturb nobody.

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
    kernels = [_kernel(factors, root) for factors in found]
    owner = torch.repeat_interleave(torch.arange(count), torch.tensor([T.shape[1] for T in targets]))
    everything = torch.cat(list(targets), 1)  # [d, Σn]
    free_effects = [float(torch.linalg.norm(kernels[i] @ targets[i])) for i in range(count)]
    full: set[int] = set()  # shares that cannot hold more
    for _ in range(_ROUNDS):
        effects = [float(torch.linalg.norm(kernels[j] @ targets[j])) for j in range(count)]
        crowded = False
        for i in set(range(count)) - full:
            moved = (kernels[i] @ everything).square().sum(0)  # [Σn]
            energies = torch.zeros(count, dtype=moved.dtype).index_add_(0, owner, moved)  # ‖M_i T_j‖²
            over = [j for j in range(count) if j != i and float(energies[j].sqrt()) > limit * effects[j]]
            if over:
                crowded = True
                new = [_directions(kernels[i] @ targets[j], targets[j], _MARGIN * limit * effects[j]) for j in over]
                more = _join(held[i], new, free)
                factors = solve(i, more)
                kernel = _kernel(factors, root)
                if float(torch.linalg.norm(kernel @ targets[i])) < _LEAST * free_effects[i]:
                    full.add(i)
                    continue
                held[i], found[i], kernels[i] = more, factors, kernel
        if not crowded:
            break
    return found


def _kernel(factors: Factors, root: torch.Tensor) -> torch.Tensor:
    """R A [r, d] with ‖R A x‖ = ‖G^½ Q A x‖ for every x: no length is taken among d outputs where r tell it."""
    A, Q = factors
    kernel: torch.Tensor = torch.linalg.qr(root @ Q, mode="r").R @ A  # [r, r] [r, d]
    return kernel


def _directions(moved: torch.Tensor, targets: torch.Tensor, most: float) -> torch.Tensor:
    """[d, k]: combinations of the targets [d, n] without which `moved` [r, n] is at most so much."""
    _, strength, right = torch.linalg.svd(moved, full_matrices=False)  # right [min(r, n), n]
    rest = strength.square().flip(0).cumsum(0).flip(0)  # of this and all that follow
    count = int((rest > most * most).sum())
    directions: torch.Tensor = targets @ right[:count].T
    return directions


def _join(held: torch.Tensor | None, new: Sequence[torch.Tensor], free: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis [d, k] of everything that is held, inside the free space."""
    parts = [part.T for part in (held, *(free @ (free.T @ own) for own in new)) if part is not None]
    return join_rows(parts).T.contiguous()
