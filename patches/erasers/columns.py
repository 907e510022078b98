"""Paired token embeddings of a concept, and fewer columns that stand for many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

_WIDE: Final = 2048
"""As wide as the embeddings of two CLIPs: from there on the n × n Gram matrix saves minutes. Below, bits are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Token embeddings of one concept.

    Attributes:
        name: the concept, for messages.
        targets: C1 [d, n] float64.
        anchors: C* [d, n] float64.
        count: how many pairs the columns stand for, where they are compressed; 0: as many as there are.
    """

    name: str
    targets: torch.Tensor
    anchors: torch.Tensor
    count: int = 0

    @property
    def pairs(self) -> int:
        """How many pairs of tokens the columns stand for."""
        return self.count or int(self.targets.shape[1])


def compress_columns(columns: Columns, tolerance: float) -> Columns:
    """Fewer columns that stand for all: ‖X·C1 − Y·C*‖ is the same for every X and Y, to the tolerance.

    The eigenvectors of the 2d × 2d Gram matrix are as good as a singular value decomposition down to 1e-8 of the
    largest singular value, and cost the same however many prompts there are.
    """
    width = columns.targets.shape[0]
    stacked = torch.cat([columns.targets, columns.anchors])  # [2d, n]
    few = width >= _WIDE and stacked.shape[1] < width
    values, vectors = torch.linalg.eigh(stacked.T @ stacked if few else stacked @ stacked.T)
    values, vectors = values.flip(0), vectors.flip(1)  # eigh sorts upwards; the strongest come first here
    kept = int((values > tolerance**2 * values[0]).sum())  # an eigenvalue is a singular value squared
    scaled = stacked @ vectors[:, :kept] if few else vectors[:, :kept] * values[:kept].sqrt()  # [2d, kept]
    return Columns(columns.name, scaled[:width].contiguous(), scaled[width:].contiguous(), columns.pairs)
