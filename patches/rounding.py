"""The last steps of the one arithmetic: a float64 product, the base added to it, rounded to float32 and to a dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Blocks"]


class Blocks:
    """Products of some rows of B with A: room for them in float64 and in float32, used again and again."""

    def __init__(self, A: torch.Tensor, rows: int) -> None:
        import torch

        self._A, self._rows = A, rows
        self._sums = torch.empty(rows, A.shape[1], dtype=torch.float64, device=A.device)
        self._singles = torch.empty(rows, A.shape[1], dtype=torch.float32, device=A.device)
        self._done = range(0)

    def round_into(self, result: torch.Tensor, base: torch.Tensor, B: torch.Tensor, at: int) -> None:
        """The base plus B·A from row `at` of B on, rounded to float32 and then to the result's dtype."""
        for start in range(0, len(base), self._rows):
            rows = slice(start, min(start + self._rows, len(base)))
            sums = self._product(B, at + rows.start, at + rows.stop)
            _round_into(result[rows], base[rows], sums, self._singles[: len(sums)])

    def _product(self, B: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Rows of B·A; those of the whole part are made at once where there is room for them."""
        import torch

        if stop > self._done.stop:
            self._done = range(start, min(start + self._rows, len(B)))
            torch.mm(B[self._done.start : self._done.stop], self._A, out=self._sums[: len(self._done)])
        return self._sums[start - self._done.start : stop - self._done.start]


def _round_into(result: torch.Tensor, base: torch.Tensor, sums: torch.Tensor, singles: torch.Tensor) -> None:
    """`sums` and `singles` [rows, d_in] are used up."""
    if _has_negative_zero(base):
        # A sum of zeros has the sign that the GEMM gives it. x + (-0.0) is x to the bit, -0.0 too.
        sums.masked_fill_(sums == 0, -0.0)
    singles.copy_(base)  # exact; a sum of float64 and float16 would take a slower way to the same bits
    sums += singles
    singles.copy_(sums)
    result.copy_(singles)


def _has_negative_zero(values: torch.Tensor) -> bool:
    """Told by the bits: -0.0 is the smallest of all integers."""
    import torch

    integers = torch.int16 if values.element_size() == 2 else torch.int32  # noqa: PLR2004  # bytes
    return int(values.view(integers).min()) == torch.iinfo(integers).min
