"""One motion of a host, from the set that is applied to the set that is wanted.

The steps, in this order:

(1) verify: what is put in has the approvals, and is signed by those, that the trust policy asks for; signatures, trust
    and digests of every wanted patch; the host is what the registry last wrote; its pristine weights are the base of
    every wanted patch;
(2) check: the composer accepts the wanted stack under the policy in force;
(3) an entry *begun* with the digests before and the predicted digests after;
(4) write, all or nothing; the host reads back and compares;
(5) an entry *done* and the host's new record, in one transaction.

All of it happens while nobody else may move the host. A *begun* without an end is settled by the next motion, see
`rasura.registry.apply.hosts.host_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TypeAlias

from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import CROSSING
from rasura.patches.errors import RasuraError
from rasura.patches.hosts.interface import Host
from rasura.patches.types import PatchId
from rasura.registry._storage.records.choices import digest_policy
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.hosts import side_branches
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import (
    REVERT,
    SET,
    SWITCH,
    applied_of,
    find_record,
    keep_set,
    location_of,
    present_set,
    settle_motion,
    sight_host,
)
from rasura.registry.apply.motion_parts import Motion
from rasura.registry.apply.preconditions.require_evaluated import EVALUATION, find_evaluation
from rasura.registry.apply.receipt import Actor, Receipt
from rasura.registry.apply.take_all_out import prepare_pristine
from rasura.registry.log.entries.outcome import describe_outcome
from rasura.registry.log.entries.signers import POLICY, REVOKED, SIGNERS, name_signers
from rasura.registry.registry import Registry
from rasura.registry.trust.approvals.demand import require_approved, require_erased
from rasura.registry.trust.limits import merge_policies
from rasura.registry.trust.roles.in_force import find_trust_policy
from rasura.registry.trust.roles.roles import check_mover

__all__ = ["Actor", "Receipt", "Wanted", "move"]

Wanted: TypeAlias = Callable[[Stack], Mapping[PatchId, Strength]]
"""From the set that is applied to the set that is wanted; raises where that cannot be."""


def move(
    registry: Registry,
    host: Host,
    wanted: Wanted,
    draft: Draft,
    *,
    stricter: Policy | None = None,
    force: bool = False,
    expect: Callable[[Motion], None] = lambda _: None,
    dry_run: bool = False,
) -> Receipt:
    """Carry a motion out, or log why not.

    Args:
        registry: which says what is applied.
        host: the model.
        wanted: what shall be applied.
        draft: the entry; host, base, digests and outcome are filled in.
        stricter: limits beside those of the registry's policy.
        force: believe the registry where the host changed outside of it.
        expect: raises where what would be written is not what somebody was promised.
        dry_run: only say what it would do; nothing is written, no entry either.

    Raises:
        RasuraError: whatever a step finds; nothing changed.
    """
    if dry_run:
        return _foresee(registry, host, wanted, draft, merge_policies(registry, stricter), expect=expect, force=force)
    draft = replace(draft, details={**draft.details, "location": location_of(host)})
    with ExitStack() as held:
        try:
            registry.check_signed(draft.action)
            held.enter_context(host.alone())
            settle_motion(registry, host)
            seen = Glance(host)  # from here on every parameter is hashed once
            present = applied_of(find_record(registry, host)) if force else present_set(registry, host, seen)
            target = _ask(registry, wanted, draft, present)
            if not present and not target:
                return _nothing(host)
            limits = merge_policies(registry, stricter)
            motion = _prepare(registry, seen, present, target, limits)  # (1), (2)
            expect(motion)
        except RasuraError as error:
            registry.note(describe_outcome(draft, error))  # a refusal is an entry, too
            raise
        if present == target:  # verified and checked, and nothing to write
            return _receipt(host, motion, changed=False)
        # An entry names the patches that move, and a revert of all those that it takes out.
        moved = draft.patches or tuple(present) if draft.action == REVERT else present.diff(target).patches
        return _carried_out(registry, seen, replace(draft, patches=moved), motion, limits)


def _prepare(registry: Registry, seen: Glance, present: Stack, target: Stack, limits: Policy) -> Motion:
    if not target:
        return prepare_pristine(registry, seen, present)
    from rasura.registry.apply.prepare import prepare_motion  # needs numpy; taking everything out does not

    return prepare_motion(registry, seen, present, target, limits)


def _ask(registry: Registry, wanted: Wanted, draft: Draft, present: Stack) -> Stack:
    """The wanted set; refuses what who acts may not move, and what lacks the approvals that the trust policy wants."""
    target, goal, plan = Stack(wanted(present)), draft.details.get("goal"), draft.details.get("plan")
    policy = find_trust_policy(registry)
    if policy is None:  # nobody has a role, and nothing is protected
        return target
    way = present.diff(target)
    check_mover(registry, policy, way.patches, adds=bool(way.added or way.changed))
    require_erased(registry, (*way.added, *way.changed))
    require_approved(
        registry,
        (*way.added, *way.changed),
        stack=goal if isinstance(goal, str) else None,
        plan=plan if isinstance(plan, str) else None,
    )
    return target


def _foresee(
    registry: Registry,
    host: Host,
    wanted: Wanted,
    draft: Draft,
    policy: Policy,
    *,
    expect: Callable[[Motion], None],
    force: bool,
) -> Receipt:
    """The receipt that a motion would give now; of an interrupted one, the side that the host is on counts."""
    record = find_record(registry, host) if force else sight_host(registry, host)
    present = applied_of(record)
    target = _ask(registry, wanted, draft, present)
    if not present and not target:
        return _nothing(host)
    motion = _prepare(registry, Glance(host), present, target, policy)
    expect(motion)
    return _receipt(host, motion, changed=present != target)


def _carried_out(registry: Registry, seen: Glance, draft: Draft, motion: Motion, policy: Policy) -> Receipt:
    host, record = seen.host, motion.record
    details = {**draft.details, "parameters": motion.parameters}
    details |= {POLICY: digest_policy(policy), SIGNERS: name_signers(motion.keys.values())}
    if motion.branches:  # of a model on disk, and of most live ones, there are none
        details |= side_branches.said(host, motion.branches)
    # Said also where the policy asks for none.
    rests_on = find_evaluation(registry, record.base, applied_of(record))
    if rests_on is not None:
        details[EVALUATION] = rests_on
    if motion.revoked:
        details[REVOKED] = name_signers(motion.revoked.values())
    if draft.action == SWITCH:  # so that an interrupted one can be settled
        details[SET] = keep_set(registry, applied_of(record))
    draft = replace(draft, base=record.base, host=record.host_id, details=details)
    draft = replace(draft, before=motion.before, after=motion.after)
    begun = registry.note(replace(draft, outcome="begun"))  # (3)
    try:
        with side_branches.exchange_branches(host, motion.branches) if motion.branches else nullcontext():
            seen.write(motion.tensors, forget=motion.forget)  # (4)
    except RasuraError as error:
        registry.note(
            replace(describe_outcome(draft, error), outcome="failed", after=motion.before, closes=begun.index)
        )
        raise
    registry.set_host(record, replace(draft, outcome="done", closes=begun.index))  # (5)
    return _receipt(host, motion)


def _nothing(host: Host) -> Receipt:
    """From no patches to none: there is not even a base to compare with."""
    nothing = digest_tensor_set(())
    return Receipt(host.location, Stack(), 0, nothing, nothing, pristine=True, changed=False)


def _receipt(host: Host, motion: Motion, *, changed: bool = True) -> Receipt:
    applied = applied_of(motion.record)
    crossing = tuple(relation for relation in motion.verdict.relations if relation.check in CROSSING)
    sides = motion.before, motion.after
    beside_now = sum(factors is not None for factors in motion.branches.values())
    stays = tuple(sorted(motion.revoked))
    return Receipt(host.location, applied, motion.parameters, *sides, not applied, changed, crossing, beside_now, stays)
