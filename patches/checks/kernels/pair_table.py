"""A table of all ordered pairs of patches that is never held as a whole: rows of shares, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch

from rasura.patches.checks.kernels.footprint import share

__all__ = ["BLOCK_BYTES", "PairTable", "divide"]

BLOCK_BYTES: Final = 64 << 20
"""Size of one product; three of them are alive at a time."""


class PairTable:
    """pair(p, q) of a fixed sequence of patches; who inherits says how some rows p come about."""

    def __init__(self, strengths: Sequence[float] | None, effects: Sequence[float], device: str) -> None:
        """Take the units.

        Args:
            strengths: factors of the disturbing patches; default 1.
            effects: ‖Δ_q T_q‖ of each.
            device: where to multiply.
        """
        self._device = device
        given = [1.0] * len(effects) if strengths is None else list(strengths)
        self._strengths = torch.tensor(given, dtype=torch.float64, device=device).abs()
        self.effects = torch.tensor(list(effects), dtype=torch.float64, device=device)
        """[N] float64: ‖Δ_q T_q‖, the unit in which q is disturbed."""

    def _shares(self, rows: range) -> torch.Tensor:
        """pair(p, q) for some p and all q, [rows, N] float64, whatever is on the diagonal."""
        raise NotImplementedError

    def _ranges(self, block_bytes: int) -> Iterator[range]:
        """All p, as many at a time as such a block holds."""
        raise NotImplementedError

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[range, torch.Tensor]]:
        """Rows p of the table of shares, a few at a time: pair(p, q) as [rows, N] float64, its diagonal 0.

        Args:
            block_bytes: most bytes of one product.
        """
        for rows in self._ranges(block_bytes):
            shares = self._shares(rows)
            own = range(len(rows))
            shares[own, list(rows)] = 0.0  # nobody disturbs itself
            yield rows, shares

    def matrix(self) -> torch.Tensor:
        """The whole table [N, N] float64 on the CPU."""
        parts = [shares.cpu() for _, shares in self.blocks()]
        return torch.cat(parts) if parts else torch.zeros(0, 0, dtype=torch.float64)

    def above(self, limit: float, most: int) -> list[tuple[int, int, float]]:
        """The worst pairs (p, q, share) over a limit, at most so many, the worst first."""
        found: list[tuple[float, int, int]] = []
        for rows, shares in self.blocks():
            over = int((shares > limit).sum())
            if over:
                values, at = shares.flatten().topk(min(most, over))  # a block can hold no more of the worst than these
                places = zip(values.tolist(), at.tolist(), strict=True)
                found += [(value, rows.start + i // shares.shape[1], i % shares.shape[1]) for value, i in places]
                found = sorted(found, key=lambda pair: (-pair[0], pair[1:]))[:most]
        return [(p, q, value) for value, p, q in found]

    def worst(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For every q, the largest share of it that any p disturbs [N], and which p that is [N]."""
        best = torch.zeros(len(self.effects), dtype=torch.float64, device=self._device)
        who = torch.zeros(len(self.effects), dtype=torch.int64, device=self._device)
        for rows, shares in self.blocks():
            values, at = shares.max(0)  # [N]: the worst p of this block for every q
            better = values > best  # on a tie the earlier block stays
            best = torch.where(better, values, best)
            who = torch.where(better, at + rows.start, who)
        return best.cpu(), who.cpu()


def divide(changed: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """`share`, entry by entry; `present` is [N], one a column."""
    if bool((present > 0).all()):
        return changed.div_(present)
    missing = torch.where(changed == 0, 0.0, share(1.0, 0.0))  # nothing disturbed of nothing is 0
    return torch.where(present > 0, changed / present, missing)
