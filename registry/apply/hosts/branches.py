"""What shall run beside quantised layers: the exact factors of a set (`rasura.registry.apply.hosts.side_branches`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from rasura.patches.algebra.compose import Layer
from rasura.patches.algebra.factors import BranchFactors
from rasura.patches.types import ParamName

__all__ = ["Branches", "make_branches"]

Branches: TypeAlias = Mapping[ParamName, BranchFactors | None]
"""Of every quantised layer that a motion touches: what shall run beside it, None for nothing."""


def make_branches(
    names: Iterable[ParamName], layers: Mapping[ParamName, Layer]
) -> dict[ParamName, BranchFactors | None]:
    """What shall run beside these quantised layers, once the whole set is as it is wanted.

    Raises:
        BoundExceededError: strengths too large for the exact sum.
    """
    # None: the set that was applied touched it, the wanted one does not; what runs there is taken away.
    return {name: BranchFactors.of(layers[name].terms) if name in layers else None for name in sorted(names)}
