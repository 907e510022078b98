"""What a check across sites finds, and whether a stack needs one; encoding again is `encoder_effects`, with torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from rasura.patches.checks.explain import explain_encoder_effect
from rasura.patches.checks.kernels.footprint import spaces_of
from rasura.patches.checks.verdict import Accepted, Refused, Relation, Verdict
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.member import Member
from rasura.patches.types import PatchId

__all__ = ["Across", "list_movers", "list_readers", "reads_across_sites", "with_across"]

_ENCODER: Final = "text_encoder"


@dataclass(frozen=True, slots=True)
class Across:
    """What encoding again shows.

    Attributes:
        relations: numbers and limits.
        unknown: patches whose retained prompts could not be encoded again.
    """

    relations: tuple[Relation, ...] = ()
    unknown: tuple[PatchId, ...] = ()


def reads_across_sites(stack: Sequence[Member]) -> bool:
    """Whether a stack holds patches of the text encoder and others that read what comes out of it."""
    return bool(list_movers(stack)) and bool(list_readers(stack))


def list_movers(stack: Sequence[Member]) -> list[Member]:
    """The patches of the text encoder, which move the embeddings that others read."""
    return [m for m in stack if any(name.startswith(_ENCODER) for name in m.patch.arrays.increments)]


def list_readers(stack: Sequence[Member]) -> list[Member]:
    """The patches that read text embeddings."""
    return [m for m in stack if TEXT in spaces_of(m.patch)]


def with_across(verdict: Verdict, found: Across, stack: Sequence[Member]) -> Verdict:
    """A verdict that also holds what encoding again shows."""
    broken = tuple(explain_encoder_effect(r, stack) for r in found.relations if not r.holds)
    relations = (*verdict.relations, *found.relations)
    if broken:
        known = () if isinstance(verdict, Accepted) else verdict.reasons
        return Refused(relations, (*known, *broken), verdict.room)
    return replace(verdict, relations=relations)
