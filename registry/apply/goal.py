"""A set of patches that somebody wants on a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.algebra.stack import Stack

if TYPE_CHECKING:
    from rasura.patches.algebra.increment import Strength
    from rasura.patches.types import Digest, PatchId

__all__ = ["Goal"]


@dataclass(frozen=True, slots=True, init=False)
class Goal:
    """A set of patches that somebody named.

    Attributes:
        source: how they named it.
        base: of all its patches; None of a model to which nothing was ever applied.
        patches: the set.
    """

    source: str
    base: Digest | None
    patches: Stack

    def __init__(self, source: str, base: Digest | None, patches: Mapping[PatchId, Strength]) -> None:
        """Any mapping will do; it is kept as a stack."""
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "patches", Stack(patches))
