"""What runs beside a quantised layer: the hook that adds the factors of a composed increment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from rasura.patches.algebra.factors import BranchFactors
from rasura.patches.types import Digest, ParamName

__all__ = ["BranchHook", "SideBranch"]


@dataclass(frozen=True, slots=True)
class SideBranch:
    """What runs beside one layer."""

    name: ParamName
    rank: int
    """Σ rank of the increments."""
    sha256: Digest
    """Over the digests of A and of s·B as float32: equal for equal sets."""


class BranchHook:
    """A forward hook that adds B (A x); the only record of what is attached."""

    def __init__(self, factors: BranchFactors | None, identity: str) -> None:
        self.factors, self.identity = factors, identity
        self._handle: Any = None

    def attached_to(self, module: nn.Module) -> Callable[[], None]:
        """Run after every forward of this module; returns what takes it away."""
        self._handle = module.register_forward_hook(self, with_kwargs=True)
        return self.remove

    def holding(self, factors: BranchFactors | None, identity: str) -> Callable[[], None]:
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
