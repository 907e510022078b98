"""How much every patch of a small stack disturbs every other, without torch.

For patches p and q with kernels K and targets T (see `footprint`), the share of q's effect that p disturbs is

    pair(p, q) = ‖K_p T_q‖ / ‖K_q T_q‖

`rasura.patches.checks.kernels.interference` has the same for thousands of patches, in blocks and on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rasura.patches._io.arrays import Array
from rasura.patches.checks.kernels.footprint import Footprint, share

__all__ = ["compute_shares"]


def compute_shares(prints: Sequence[Footprint], strengths: Sequence[float], effects: Sequence[float]) -> Array:
    """All ordered pairs [N, N] float64, the diagonal 0; the share is 0 where two patches read no space in common.

    Args:
        prints: of the patches.
        strengths: factors of the disturbing patches; the disturbed ones count at strength 1.
        effects: ‖Δ_q T_q‖ of each, the unit in which q is disturbed.
    """
    count = len(prints)
    energies = np.zeros((count, count))
    for space in sorted({space for found in prints for space in found.kernels}):
        some = [place for place, found in enumerate(prints) if space in found.kernels]
        kernels = [prints[place].kernels[space] for place in some]  # [k, d] each
        targets = [prints[place].targets[space] for place in some]  # [d, m] each
        # One GEMM, however many patches: [Σk, Σm], then summed over the rows of each p and the columns of each q.
        product = np.square(np.concatenate(kernels) @ np.concatenate(targets, axis=1))
        product = np.add.reduceat(product, _starts([kernel.shape[0] for kernel in kernels]), axis=0)
        energies[np.ix_(some, some)] += np.add.reduceat(product, _starts([t.shape[1] for t in targets]), axis=1)
    moved = np.sqrt(energies) * np.abs(np.asarray(strengths))[:, None]
    found = [[share(float(value), unit) for value, unit in zip(row, effects, strict=True)] for row in moved]
    table = np.array(found).reshape(count, count)
    np.fill_diagonal(table, 0.0)  # nobody disturbs itself
    return table


def _starts(sizes: Sequence[int]) -> Array:
    """Where each part begins, all of them of one row at least."""
    return np.cumsum([0, *sizes[:-1]])
