"""A set of patches that somebody wants on a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasura.patches.algebra.increment import Strength
    from rasura.patches.types import Digest, PatchId

__all__ = ["Goal"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A set of patches that somebody named.

    Attributes:
        source: how they named it.
        base: of all its patches; None of a model to which nothing was ever applied.
        patches: the set.
    """

    source: str
    base: Digest | None
    patches: Mapping[PatchId, Strength]
