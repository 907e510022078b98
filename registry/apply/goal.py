"""A set of patches that somebody wants on a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.policy import Policy, combine_policies
from rasura.patches.types import Digest, PatchId

__all__ = ["Goal", "stricter_of"]


@dataclass(frozen=True, slots=True, init=False)
class Goal:
    """A set of patches that somebody named.

    Attributes:
        source: how they named it.
        base: of all its patches; None of a model to which nothing was ever applied.
        patches: the set.
        limits: a policy that comes with the set, as a lock file has one: it holds beside the registry's.
    """

    source: str
    base: Digest | None
    patches: Stack
    limits: Policy | None

    def __init__(
        self, source: str, base: Digest | None, patches: Mapping[PatchId, Strength], limits: Policy | None = None
    ) -> None:
        """Any mapping will do; it is kept as a stack."""
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "patches", Stack(patches))
        object.__setattr__(self, "limits", limits)


def stricter_of(goal: Goal, policy: Policy | None) -> Policy | None:
    """What holds for a goal beside the registry's policy: what came with it, and what somebody asks for besides."""
    asked = [found for found in (goal.limits, policy) if found is not None]
    return combine_policies(*asked) if asked else None
