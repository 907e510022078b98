"""A set of patches, each at its strength: the state of a model, the content of a stack, both sides of a plan.

A stack is a value. The order in which people name patches means nothing, so it is kept in one order, by identifier, and
two stacks of the same patches at the same strengths are equal, have equal JSON and equal digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.algebra.strength import SIXTEENTHS, STRENGTH_LIMIT, Strength
from rasura.patches.errors import FormatError
from rasura.patches.types import Digest, PatchId

__all__ = ["Stack", "StackDiff"]

_MOST = SIXTEENTHS * STRENGTH_LIMIT


@dataclass(frozen=True, slots=True, eq=False)
class Stack(Mapping[PatchId, Strength]):
    """Patches with their strengths; a mapping that nobody can change, in the order of the identifiers."""

    strengths: Mapping[PatchId, Strength] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A copy: whoever handed the mapping in may change it afterwards.
        object.__setattr__(self, "strengths", dict(sorted(self.strengths.items())))

    @classmethod
    def of_sixteenths(cls, numbers: Mapping[PatchId, int]) -> Self:
        """The stack of a record, which holds strengths as integers.

        Raises:
            StrengthError: one is out of range.
        """
        return cls({patch_id: Strength(number) for patch_id, number in numbers.items()})

    @classmethod
    def parse(cls, fields: Fields, what: str) -> Self:
        """Read the object that `to_json` wrote.

        Args:
            fields: the object.
            what: the document, for messages.

        Raises:
            FormatError: a name that is no identifier, or a strength that is no integer, out of range, or 0.
        """
        names = Fields({name: name for name in fields.names()}, f"{what}: patches")
        found = {PatchId(names.digest(name)): fields.integer(name, -_MOST, _MOST) for name in fields.names()}
        if 0 in found.values():
            raise FormatError(f"{what}: expected no patch of strength 0, got one")
        return cls.of_sixteenths(found)

    def to_json(self) -> dict[str, JsonValue]:
        """Identifiers with strengths in sixteenths: how plans, bisections and the sets of the log spell a stack."""
        return {patch_id: strength.sixteenths for patch_id, strength in self.strengths.items()}

    @property
    def sixteenths(self) -> dict[PatchId, int]:
        """The strengths as integers, as records and the log hold them."""
        return {patch_id: strength.sixteenths for patch_id, strength in self.strengths.items()}

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON: equal for equal stacks, whatever order they were named in."""
        return Digest(hashlib.sha256(canonical_json.dumps(self.to_json())).hexdigest())

    def with_(self, others: Mapping[PatchId, Strength]) -> Self:
        """This stack and these patches; of those in both, the strengths given here."""
        return type(self)({**self.strengths, **others})

    def without(self, patch_ids: Iterable[PatchId]) -> Self:
        """This stack less these patches; those that are not in it change nothing."""
        gone = frozenset(patch_ids)
        return type(self)({p: strength for p, strength in self.strengths.items() if p not in gone})

    def diff(self, after: Mapping[PatchId, Strength]) -> StackDiff:
        """What a motion from this stack to another one adds, removes and changes."""
        both = {p: (strength, after[p]) for p, strength in self.strengths.items() if p in after}
        return StackDiff(
            added=Stack({p: strength for p, strength in after.items() if p not in self.strengths}),
            removed=self.without(after),
            changed={p: pair for p, pair in both.items() if pair[0] != pair[1]},
        )

    def __getitem__(self, patch_id: PatchId) -> Strength:
        """The strength of a patch of this stack."""
        return self.strengths[patch_id]

    def __iter__(self) -> Iterator[PatchId]:
        """The identifiers, sorted."""
        return iter(self.strengths)

    def __len__(self) -> int:
        """How many patches."""
        return len(self.strengths)

    def __hash__(self) -> int:
        """Equal for equal stacks, which compare as mappings do."""
        return hash(tuple(self.strengths.items()))


@dataclass(frozen=True, slots=True)
class StackDiff:
    """The way from one stack to another.

    Attributes:
        added: what comes.
        removed: what goes.
        changed: what stays with another strength: the old and the new one.
    """

    added: Stack
    removed: Stack
    changed: Mapping[PatchId, tuple[Strength, Strength]]

    def __len__(self) -> int:
        """How many patches come, go or change their strength."""
        return len(self.added) + len(self.removed) + len(self.changed)

    @property
    def patches(self) -> tuple[PatchId, ...]:
        """All of these, sorted."""
        return tuple(sorted({*self.added, *self.removed, *self.changed}))
