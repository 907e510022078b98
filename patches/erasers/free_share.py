"""How much of a concept lies outside what is protected: below a floor, no erasure is worth its price."""

from __future__ import annotations

from typing import Final

import torch

from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.plain_numbers import say_beside

FREE_FLOOR: Final = 1e-3
"""Share of a target's norm that must lie outside the protected span; below, the edit would be thousands of times W."""


def share_of(free: torch.Tensor, whole: torch.Tensor) -> float:
    """What share of a concept's norm is free: ‖free‖/‖whole‖, both [d, n], 0 to 1."""
    return float(torch.linalg.vector_norm(free) / torch.linalg.vector_norm(whole))


def free_norm(targets: torch.Tensor, basis: ProtectedBasis) -> float:
    """What share of the norm of targets [d, n] lies outside a basis, 0 to 1."""
    return share_of(basis.project(targets), targets)


def say_free(share: float) -> str:
    """How much of a concept is free, and how much has to be: for a refusal."""
    free, least = say_beside(share, FREE_FLOOR)
    return f"{free} of it is free, expected at least {least}"
