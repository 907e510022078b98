"""The factors of a composed increment, for whoever adds B (A x) instead of merging B A."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.compose import Term, compose_beside
from rasura.patches.types import Digest

__all__ = ["BranchFactors"]


@dataclass(frozen=True, slots=True, eq=False)
class BranchFactors:
    """The composed increment of one layer as it is attached: B A, float32."""

    A: torch.Tensor
    """[Σ rank, d_in]."""
    B: torch.Tensor
    """[d_out, Σ rank], strengths included."""

    @classmethod
    def of(cls, terms: Sequence[Term]) -> Self:
        """Of a set of increments, in an order that depends on the set alone.

        Raises:
            AlgebraError: no terms, or terms of different shapes.
            BoundExceededError: strengths too large for the exact sum.
        """
        B, A = compose_beside(terms)
        return cls(A.to(torch.float32), B.to(torch.float32))

    @property
    def sha256(self) -> Digest:
        """Over the digests of A and B: equal for equal sets; from the numbers, each time."""
        return digest_of(f"{digest_tensor(self.A)}{digest_tensor(self.B)}".encode())

    def beside(self, module: nn.Module) -> BranchFactors:
        """The same numbers where a layer's own are; beside one that is offloaded, they stay where they are."""
        device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("meta"))
        return self if device.type == "meta" else BranchFactors(self.A.to(device), self.B.to(device))
