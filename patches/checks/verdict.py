"""What a check says: numbers with their limits, and whether a stack is accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from rasura.patches.errors import CheckRefusedError
from rasura.patches.types import SHORT, PatchId

if TYPE_CHECKING:
    from rasura.patches.checks.kernels.capacity import Capacity  # needs numpy; saying a verdict does not

__all__ = [
    "CROSSING",
    "SHORT",
    "Accepted",
    "CheckName",
    "NeedsRebase",
    "Reason",
    "Refused",
    "Relation",
    "Verdict",
    "require",
]

_SAID: Final = 20  # reasons in one error


class CheckName(StrEnum):
    """What was measured; the value is how people and reports call it."""

    OWN = "own"
    PAIR = "pair"
    ONE_SIDED = "one-sided"
    KEPT = "kept"
    STACK = "stack"
    RESIDUAL = "residual"
    CAPACITY = "capacity"
    BOUND = "bound"
    # Behind the patched text encoder, `encoder_effects`:
    SITE = "site"
    MOVED_OWN = "moved-own"
    MOVED_PAIR = "moved-pair"
    MOVED_STACK = "moved-stack"
    # When patches leave, `removal`:
    LOST = "lost"
    LEFT = "left"


CROSSING: Final = (CheckName.LOST, CheckName.LEFT)
"""Checks of pairs of which one patch leaves and the other stays."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One measured number.

    Attributes:
        check: what was measured.
        patch: whose increment.
        other: whose targets or protected set; equal to `patch` for `OWN`.
        value: the ratio.
        limit: what the policy allows.
    """

    check: CheckName
    patch: PatchId
    other: PatchId
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the value is within its limit."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a stack is refused: a sentence with the number and the limit, and the command that would resolve it."""

    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every relation holds.

    Attributes:
        relations: every number.
        room: what of the text embedding's dimensions the judged stack takes; None where that was not computed.
    """

    relations: tuple[Relation, ...]
    room: Capacity | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Some relation does not hold; nothing may be applied. For `room` see `Accepted`."""

    relations: tuple[Relation, ...]
    reasons: tuple[Reason, ...] = field(default=())
    room: Capacity | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NeedsRebase:
    """Patches disturb each other, and nothing else is wrong: solving some of them anew resolves it.

    Attributes:
        relations: every number.
        reasons: one for each pair.
        moves: patch and the patches that it must protect, for each patch to solve anew.
        room: see `Accepted`.
    """

    relations: tuple[Relation, ...]
    reasons: tuple[Reason, ...]
    moves: tuple[tuple[PatchId, tuple[PatchId, ...]], ...]
    room: Capacity | None = field(default=None, compare=False)


Verdict: TypeAlias = Accepted | Refused | NeedsRebase


def require(verdict: Verdict) -> Accepted:
    """The verdict, if it is Accepted.

    Raises:
        CheckRefusedError: with every reason.
    """
    if isinstance(verdict, Accepted):
        return verdict
    texts = [reason.text for reason in verdict.reasons]
    more = f" (and {len(texts) - _SAID} more)" if len(texts) > _SAID else ""
    raise CheckRefusedError("; ".join(texts[:_SAID]) + more, hint=verdict.reasons[0].hint, reasons=texts)
