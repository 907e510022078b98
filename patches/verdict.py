"""What a check says: numbers with their limits, and whether a stack is accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rasura.patches.errors import CheckRefusedError
from rasura.patches.file import Patch
from rasura.patches.increment import ONE, Strength
from rasura.patches.names import PatchId

SHORT: Final = 12  # digits of an id in a sentence


@dataclass(frozen=True, slots=True)
class Member:
    """A patch of a stack, at a strength.

    Attributes:
        patch: the patch.
        strength: its factor.
        patch_id: the patch's identity, hashed once.
    """

    patch: Patch
    strength: Strength = ONE
    patch_id: PatchId = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_id", self.patch.patch_id)


@dataclass(frozen=True, slots=True)
class Relation:
    """One measured number.

    Attributes:
        check: "own", "pair", "one-sided", "kept", "stack" or "bound".
        patch: whose increment.
        other: whose targets or protected set; equal to `patch` for "own".
        value: the ratio.
        limit: what the policy allows.
    """

    check: str
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
    """Every relation holds."""

    relations: tuple[Relation, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Some relation does not hold; nothing may be applied."""

    relations: tuple[Relation, ...]
    reasons: tuple[Reason, ...] = field(default=())


Verdict: TypeAlias = Accepted | Refused


def require(verdict: Verdict) -> Accepted:
    """The verdict, if it is Accepted.

    Raises:
        CheckRefusedError: with every reason.
    """
    if isinstance(verdict, Refused):
        first = verdict.reasons[0]
        raise CheckRefusedError(
            "; ".join(reason.text for reason in verdict.reasons),
            hint=first.hint,
            reasons=[reason.text for reason in verdict.reasons],
        )
    return verdict
