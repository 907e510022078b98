"""Asking the composer about a set of registered patches, under the policy in force."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.policy import Policy, all_of
from rasura.registry.intake import load_signed

if TYPE_CHECKING:
    from rasura.patches.increment import Strength
    from rasura.patches.names import KeyId, PatchId
    from rasura.patches.verdict import Relation, Verdict
    from rasura.registry.store import Registry

__all__ = ["Judged", "Worst", "effective", "judged", "worst_of"]


@dataclass(frozen=True, slots=True)
class Worst:
    """Of one kind of check, the number that is nearest to its limit, or farthest beyond it."""

    value: float
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A set of patches, verified anew, and what the composer says of it.

    Attributes:
        verdict: accepted, or why not.
        keys: who signed each patch.
    """

    verdict: Verdict
    keys: Mapping[PatchId, KeyId]


def effective(registry: Registry, stricter: Policy | None) -> Policy:
    """The policy in force, and another one that can only make it stricter."""
    found = registry.policy()
    return found if stricter is None else all_of(found, stricter)


def judged(registry: Registry, patches: Mapping[PatchId, Strength], policy: Policy) -> Judged:
    """Verify every patch of a set and have the composer check the set.

    Raises:
        VerificationError: a signature, digest or number is not good, or a key does not count here.
        NotFoundError: a patch or its files are not here.
    """
    from rasura.patches.projection import Member, check

    loaded = {patch_id: load_signed(registry, patch_id) for patch_id in patches}
    verdict = check([Member(loaded[patch_id].patch, strength) for patch_id, strength in patches.items()], policy)
    return Judged(verdict, {patch_id: verified.key_id for patch_id, verified in loaded.items()})


def worst_of(verdict: Verdict) -> dict[str, Worst]:
    """The worst number of each kind of check, by the check's name, sorted."""
    found: dict[str, Worst] = {}
    for relation in sorted(verdict.relations, key=lambda r: (r.check, _share(r), r.value)):
        found[relation.check] = Worst(relation.value, relation.limit)  # the last one is the worst
    return found


def _share(relation: Relation) -> float:
    """How much of its limit a number takes; without a limit, nothing."""
    if relation.limit == 0:
        return math.inf if relation.value > 0 else 0.0
    return 0.0 if math.isinf(relation.limit) else relation.value / relation.limit
