"""Checking registered patches: verified from their bytes, judged by a policy, across sites where they need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.errors import NotFoundError
from rasura.patches.increment import Strength
from rasura.patches.names import PatchId
from rasura.registry.intake import load_verified

if TYPE_CHECKING:
    from rasura.patches.capacity import Capacity
    from rasura.patches.policy import Policy
    from rasura.patches.verdict import Member, Verdict
    from rasura.registry.store import Registry

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """What a check found.

    Attributes:
        stack: the patches, verified.
        verdict: every number, and whether the stack is accepted.
        capacity: room taken; None where nothing reads text embeddings.
        unknown: patches whose retained prompts could not be encoded again behind a patched text encoder.
    """

    stack: tuple[Member, ...]
    verdict: Verdict
    capacity: Capacity | None
    unknown: tuple[PatchId, ...] = ()


def check_registered(
    registry: Registry,
    wanted: Mapping[PatchId, Strength],
    policy: Policy,
    progress: Progress,
    *,
    leaving: Iterable[PatchId] = (),
) -> Checked:
    """Verify and judge a set of patches.

    Args:
        registry: where they are.
        wanted: the set.
        policy: the limits.
        progress: told what is going on.
        leaving: of the set, what is to be taken out: judge that instead (`rasura.patches.removal`).

    Raises:
        NotFoundError: no such patch.
        VerificationError: bytes, signature or trust.
    """
    from rasura.patches.capacity import Capacity
    from rasura.patches.projection import check
    from rasura.patches.removal import check_revert
    from rasura.patches.verdict import Member

    stack = []
    for done, (patch_id, strength) in enumerate(wanted.items()):
        progress("verifying patches", done, len(wanted))
        stack.append(Member(load_verified(registry, patch_id), strength))
    gone = frozenset(leaving)
    progress("checking", 0, 1)
    verdict: Verdict = check_revert(stack, gone, policy) if gone else check(stack, policy)
    staying = [member for member in stack if member.patch_id not in gone]
    verdict, unknown = behind_encoder(registry, staying, verdict, policy, progress)
    progress("checking", 1, 1)
    return Checked(tuple(stack), verdict, Capacity.of([m.patch for m in staying]), unknown)


def behind_encoder(
    registry: Registry, stack: list[Member], verdict: Verdict, policy: Policy, progress: Progress
) -> tuple[Verdict, tuple[PatchId, ...]]:
    """The verdict with the checks across sites; refused where a stack needs them and its base is not at hand."""
    from rasura.patches.across import with_across
    from rasura.patches.verdict import Reason, Refused
    from rasura.registry.sites import look_across

    try:
        found = look_across(registry, stack, policy, progress=progress)
    except NotFoundError as error:
        known = getattr(verdict, "reasons", ())
        return Refused(verdict.relations, (*known, Reason(error.message, error.hint))), ()
    return with_across(verdict, found, stack), found.unknown
