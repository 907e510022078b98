"""Asking the composer about a set of registered patches, under the policy in force."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.checks.policy import Policy, combine_policies
from rasura.patches.errors import NotFoundError, VerificationError
from rasura.registry.trust.encoder_check import look_across
from rasura.registry.trust.verified_patch import load_signed

if TYPE_CHECKING:
    from rasura.patches.algebra.increment import Strength
    from rasura.patches.checks.capacity import Capacity
    from rasura.patches.checks.verdict import Relation, Verdict
    from rasura.patches.format.member import Member
    from rasura.patches.hosts.interface import Host
    from rasura.patches.types import KeyId, PatchId
    from rasura.registry.registry import Registry

__all__ = ["Judged", "Worst", "find_worst", "judge_stack", "merge_policies"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Worst:
    """Of one kind of check, the number that is nearest to its limit, or farthest beyond it."""

    value: float
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A set of patches, verified anew, and what the composer says of it.

    Attributes:
        stack: the patches.
        verdict: accepted, or why not.
        keys: who signed each patch.
        unknown: patches whose retained prompts could not be encoded again behind a patched text encoder.
    """

    stack: tuple[Member, ...]
    verdict: Verdict
    keys: Mapping[PatchId, KeyId]
    unknown: tuple[PatchId, ...] = ()

    @property
    def capacity(self) -> Capacity | None:
        """The room that the set takes; None where nothing reads text embeddings."""
        from rasura.patches.checks.capacity import Capacity

        return Capacity.of([member.patch for member in self.stack])


def merge_policies(registry: Registry, stricter: Policy | None) -> Policy:
    """The policy in force, and another one that can only make it stricter."""
    found = registry.policy()
    return found if stricter is None else combine_policies(found, stricter)


def judge_stack(
    registry: Registry,
    patches: Mapping[PatchId, Strength],
    policy: Policy,
    *,
    leaving: Mapping[PatchId, Strength] | None = None,
    host: Host | None = None,
    progress: Progress = lambda *_: None,
) -> Judged:
    """Verify every patch of a set and have the composer check the set, across sites where it has patches of both.

    Args:
        registry: where they are.
        patches: the set.
        policy: the limits.
        leaving: what is taken out to get to this set; what it breaks anew refuses (`rasura.patches.checks.removal`).
        host: the model that the set is for, if there is one.
        progress: told what is going on.

    Raises:
        VerificationError: a signature, digest or number is not good, or a key does not count here.
        NotFoundError: a patch or its files are not here.
    """
    from rasura.patches.checks.check import check
    from rasura.patches.checks.encoder_effects import with_across
    from rasura.patches.checks.removal import check_revert
    from rasura.patches.format.member import Member

    stack, keys = [], {}
    for done, (patch_id, strength) in enumerate(patches.items()):
        progress("verifying patches", done, len(patches))
        verified = load_signed(registry, patch_id)
        stack.append(Member(verified.patch, strength))
        keys[patch_id] = verified.key_id
    progress("checking", 0, 1)
    gone = _readable(registry, leaving or {})
    left = [member.patch_id for member in gone]
    verdict = check_revert([*stack, *gone], left, policy) if gone else check(stack, policy)
    try:
        found = look_across(registry, stack, policy, host=host, progress=progress)
    except NotFoundError as error:
        return Judged(tuple(stack), _unseen(verdict, error), keys)
    progress("checking", 1, 1)
    return Judged(tuple(stack), with_across(verdict, found, stack), keys, found.unknown)


def find_worst(verdict: Verdict) -> dict[str, Worst]:
    """The worst number of each kind of check, by the check's name, sorted."""
    found: dict[str, Worst] = {}
    for relation in sorted(verdict.relations, key=lambda r: (r.check, _share(r), r.value)):
        found[relation.check] = Worst(relation.value, relation.limit)  # the last one is the worst
    return found


def _readable(registry: Registry, leaving: Mapping[PatchId, Strength]) -> list[Member]:
    """What leaves, as far as it can be verified: a revoked key is a reason to take a patch out, not to keep it in."""
    from rasura.patches.format.member import Member

    found = []
    for patch_id, strength in leaving.items():
        try:
            found.append(Member(load_signed(registry, patch_id).patch, strength))
        except (VerificationError, NotFoundError):
            return []
    return found


def _unseen(verdict: Verdict, error: NotFoundError) -> Verdict:
    """Refused: the stack cannot be checked behind its patched text encoder, and nothing is assumed of it."""
    from rasura.patches.checks.verdict import Accepted, Reason, Refused

    known = () if isinstance(verdict, Accepted) else verdict.reasons
    return Refused(verdict.relations, (*known, Reason(error.message, error.hint)))


def _share(relation: Relation) -> float:
    """How much of its limit a number takes; without a limit, nothing."""
    if relation.limit == 0:
        return math.inf if relation.value > 0 else 0.0
    return 0.0 if math.isinf(relation.limit) else relation.value / relation.limit
