"""What runs beside a quantised layer: the factors of a composed increment, and the hook that adds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import tensor_digest
from rasura.patches.algebra.compose import Term, beside
from rasura.patches.types import Digest, ParamName

__all__ = ["BranchHook", "Factors", "SideBranch"]


@dataclass(frozen=True, slots=True)
class SideBranch:
    """What runs beside one layer."""

    name: ParamName
    rank: int
    """Σ rank of the increments."""
    sha256: Digest
    """Over the digests of A and of s·B as float32: equal for equal sets."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
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
        B, A = beside(terms)
        return cls(A.to(torch.float32), B.to(torch.float32))

    @property
    def sha256(self) -> Digest:
        """See `SideBranch.sha256`; from the numbers, each time."""
        return digest_of(f"{tensor_digest(self.A)}{tensor_digest(self.B)}".encode())

    def beside(self, module: nn.Module) -> Factors:
        """The same numbers where a layer's own are; beside one that is offloaded, they stay where they are."""
        device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("meta"))
        return self if device.type == "meta" else Factors(self.A.to(device), self.B.to(device))


class BranchHook:
    """A forward hook that adds B (A x); the only record of what is attached."""

    def __init__(self, factors: Factors | None, identity: str) -> None:
        self.factors, self.identity = factors, identity
        self._handle: Any = None

    def attached_to(self, module: nn.Module) -> Callable[[], None]:
        """Run after every forward of this module; returns what takes it away."""
        self._handle = module.register_forward_hook(self, with_kwargs=True)
        return self.remove

    def holding(self, factors: Factors | None, identity: str) -> Callable[[], None]:
        """Add this from now on, at the same place among the module's hooks; returns what brings the old back."""
        before = self.factors, self.identity

        def back() -> None:
            self.factors, self.identity = before

        self.factors, self.identity = factors, identity
        return back

    def remove(self) -> None:
        """Run no more."""
        self._handle.remove()

    def __call__(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: torch.Tensor
    ) -> torch.Tensor:
        """The layer's output and B (A x), computed in the dtype of its input x [..., d_in]."""
        if self.factors is None:
            return output
        given = args[0] if args else next(iter(kwargs.values()))
        A, B = (f.to(device=given.device, dtype=given.dtype) for f in (self.factors.A, self.factors.B))
        return output + functional.linear(functional.linear(given, A), B).to(output.dtype)
