"""Doing what a plan of a takedown says: patches signed and registered, then one motion of the model or the stack.

Either all of it happens or the model, and the stack, stay as they were; a patch that was registered before a motion
failed harms nobody, and is found again when the same is asked once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rasura.patches.checks.policy import Policy
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.operations import switch
from rasura.registry.apply.receipt import Actor, Receipt
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.stacks.edit import set_members
from rasura.registry.takedown.coverage import draft_cover, find_covered
from rasura.registry.takedown.plan import TakedownPlan
from rasura.registry.takedown.solving.planned import PlannedPatch
from rasura.registry.trust.register_patch import SignedPatch, add_signed
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.verified_patch import read_signed_files

__all__ = ["CarriedOut", "carry_out"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """What came of a plan: the receipt of a model, or the stack; neither where nothing was to do."""

    receipt: Receipt | None = None
    stack: StackRecord | None = None


def carry_out(
    registry: Registry,
    plan: TakedownPlan,
    *,
    key: str | None,
    draft: Draft,
    progress: Progress,
    policy: Policy | None = None,
) -> CarriedOut:
    """Register the plan's patches and move the model, or the stack, to its set in one motion.

    Args:
        registry: where the patches go.
        plan: what to do.
        key: name of the key to sign with; None takes the only one.
        draft: the entry of each patch; its reason and actor stand in the motion's, too. What was asked for under a
            ticket that is a case belongs to the case, and so does the motion.
        progress: told what is going on.
        policy: limits beside those of the registry's policy.

    Raises:
        ConflictError: the model or stack is no longer what the plan was made for.
        RasuraError: see `rasura.registry.apply.operations.switch`; logged, and nothing was moved.
    """
    if not plan.changes:
        return CarriedOut()
    with registry.belonging_by_ticket(_list_tickets(plan)):
        return _carry_out(registry, plan, key=key, draft=draft, progress=progress, policy=policy)


def _carry_out(
    registry: Registry,
    plan: TakedownPlan,
    *,
    key: str | None,
    draft: Draft,
    progress: Progress,
    policy: Policy | None,
) -> CarriedOut:
    ground, actor = plan.ground, Actor(draft.actor, draft.reason)
    with log_failure(registry, replace(draft, patches=tuple(plan.after))):
        if plan.made:
            private = find_eraser(registry, key)
            add_signed(registry, [_signed(item, private, draft, plan) for item in plan.made])
        _remember(registry, plan, draft)
        progress("switching", 0, 1)
        if ground.place.stack is not None:
            done = CarriedOut(
                stack=set_members(registry, ground.place.stack, plan.after, actor, expected=ground.strengths)
            )
        else:
            goal = Goal("takedown", ground.base.record.digest, plan.after)
            before = ground.strengths
            done = CarriedOut(receipt=switch(registry, ground.base.host, goal, actor, policy=policy, expected=before))
        _forget(registry, plan, draft)
        progress("switching", 1, 1)
    return done


def _list_tickets(plan: TakedownPlan) -> frozenset[str]:
    made = (item.wanted.ticket for item in plan.made if item.wanted is not None)
    raised = (each.wanted.ticket for each in plan.raised)
    return frozenset({*made, *raised, *(cover.wanted.ticket for cover in plan.covered)})


def _signed(item: PlannedPatch, key: SigningKey, draft: Draft, plan: TakedownPlan) -> SignedPatch:
    details = {"place": plan.ground.place.source, **({} if item.wanted is None else item.wanted.details)}
    if item.supersedes is not None:
        details["supersedes"] = item.supersedes
    action = "patch.erase" if item.supersedes is None else "patch.rebase"
    noted = replace(draft, action=action, details=details)
    source = f"erased from {plan.ground.base.record.name}"
    return SignedPatch(read_signed_files(item.patch, key), source, noted, item.words)


def _remember(registry: Registry, plan: TakedownPlan, draft: Draft) -> None:
    for cover in plan.covered:
        registry.note(draft_cover(cover, plan.ground, draft))


def _forget(registry: Registry, plan: TakedownPlan, draft: Draft) -> None:
    """Concepts that have patches of their own now, or that were withdrawn, are covered by none any more."""
    own = {patch.manifest.concept.text for patch in plan.patches.values()}
    for cover in find_covered(registry, plan.ground):
        if cover.wanted.concept in own | set(plan.uncovered):
            registry.note(draft_cover(cover, plan.ground, draft, ends=True))
