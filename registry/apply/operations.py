"""Moving a host from one set of patches to another: apply, revert, switch.

The state of a host is a set, so there is one motion: from the set that is applied to the set that is wanted. Every
touched parameter gets the value of the new set, computed from its pristine original; a parameter that no wanted patch
touches gets the original back. The motion's steps stand in `rasura.registry.apply.motion`.

Every motion holds the wanted set to the registry's policy; a policy given here can only make it stricter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import SHORT
from rasura.patches.errors import (
    AlreadyAppliedError,
    BaseMismatchError,
    ConflictError,
    InputError,
    NotAppliedError,
    StrengthError,
)
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.new_copy import find_dead, new_copy
from rasura.patches.hosts.interface import Host
from rasura.patches.obstacles import Obstacles
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.goal import Goal, stricter_of
from rasura.registry.apply.hosts.host_state import (
    APPLY,
    REVERT,
    STRENGTH,
    SWITCH,
    applied_of,
    find_record,
    look_at,
    settle_unborn,
)
from rasura.registry.apply.motion import move
from rasura.registry.apply.preconditions.require_in_use import check_in_use
from rasura.registry.apply.receipt import Actor, Receipt
from rasura.registry.registry import Registry

__all__ = [
    "Actor",
    "Receipt",
    "apply",
    "apply_to_folder",
    "check_base",
    "revert",
    "switch",
    "switch_folder",
]


def apply(
    registry: Registry,
    host: Host,
    patch_ids: Iterable[PatchId],
    actor: Actor,
    *,
    strength: Strength = ONE,
    policy: Policy | None = None,
    dry_run: bool = False,
) -> Receipt:
    """Apply patches to a host, together with those that are applied already.

    Those that are applied at this strength stay as they are; where all are, nothing is written, not even an entry. With
    `dry_run` nothing is written in any case.

    Raises:
        AlreadyAppliedError: one of them is applied at another strength; nothing changed.
        StrengthError: strength 0.
        NotFoundError: the base of the patches is not in this registry.
        BusyError: somebody else is moving the host.
        VerificationError, BaseMismatchError, DriftError, CheckRefusedError, HostError: see the steps; nothing changed.
    """
    ids = tuple(dict.fromkeys(patch_ids))
    if strength.sixteenths == 0:
        raise StrengthError("strength 0 applies nothing: expected another", hint="rasura patch revert ID --model MODEL")

    def wanted(applied: Stack) -> Stack:
        obstacles = Obstacles()
        for patch_id in ids:
            if applied.get(patch_id, strength) != strength:  # what is applied at this strength may be asked for again
                obstacles.add(
                    AlreadyAppliedError(
                        f"patch {patch_id[:SHORT]} is applied to {host.location} already: expected strength "
                        f"{strength}, got {applied[patch_id]}",
                        hint=look_at(host),
                    )
                )
        with obstacles.noting():
            # Nobody has to take back what was retired after it was applied.
            check_in_use(registry, (patch_id for patch_id in ids if patch_id not in applied))
        obstacles.refuse()
        return applied.with_(dict.fromkeys(ids, strength))

    draft = Draft(actor.name, actor.reason, APPLY, "success", ids, details={STRENGTH: strength.sixteenths})
    return move(registry, host, wanted, draft, stricter=policy, dry_run=dry_run)


def revert(
    registry: Registry,
    host: Host,
    patch_ids: Iterable[PatchId] | None,
    actor: Actor,
    *,
    policy: Policy | None = None,
    force: bool = False,
    expected: Stack | None = None,
    dry_run: bool = False,
) -> Receipt:
    """Take patches out of a host's set; None takes out all of them.

    Args:
        registry: which says what is applied.
        host: the model.
        patch_ids: what to take out.
        actor: who and why.
        policy: limits for what stays, beside those of the registry's policy.
        force: with None only: also where the host changed outside the registry. Its touched parameters get their
            originals, which must be those of the base.
        expected: what must be applied before; looked at while nobody else may move the host.
        dry_run: only say what it would do.

    Raises:
        ConflictError: something else than `expected` is applied.
        NotAppliedError: one of them is not applied; nothing changed.
        InputError: `force` with patches named.
        DriftError: the host is not what the registry last wrote, or with `force`: has not its originals; nothing
            changed.
        BusyError: somebody else is moving the host.
    """
    ids = None if patch_ids is None else tuple(dict.fromkeys(patch_ids))
    # Where the host is not what was last written, nobody can say what it would be without some of its patches.
    if force and ids is not None:
        raise InputError(
            "force puts all originals back: expected no patch ids", hint="rasura patch revert --all --force"
        )

    def wanted(applied: Stack) -> Stack:
        _check_expected(applied, expected, host)
        _check_applied(applied, ids, host)
        return Stack() if ids is None else applied.without(ids)

    draft = Draft(actor.name, actor.reason, REVERT, "success", ids or (), details={"force": "yes"} if force else {})
    return move(registry, host, wanted, draft, stricter=policy, force=force, dry_run=dry_run)


def switch(
    registry: Registry,
    host: Host,
    goal: Goal,
    actor: Actor,
    *,
    policy: Policy | None = None,
    expected: Stack | None = None,
    dry_run: bool = False,
) -> Receipt:
    """Move a host to exactly this set, each patch at its strength, in one motion; from there, nothing happens.

    Args:
        registry: which says what is applied.
        host: the model.
        goal: the set.
        actor: who and why.
        policy: limits beside those of the registry's policy.
        expected: what must be applied before; looked at while nobody else may move the host.
        dry_run: only say what it would do.

    Raises:
        ConflictError: something else than `expected` is applied.
        BaseMismatchError: the host has patches of another base, and the set is empty.
        DriftError, BusyError, …: see `apply`; nothing changed.
    """

    def wanted(applied: Stack) -> Stack:
        _check_expected(applied, expected, host)
        check_base(registry, host, goal)
        return goal.patches

    draft = Draft(actor.name, actor.reason, SWITCH, "success", tuple(goal.patches), details={"goal": goal.source})
    return move(registry, host, wanted, draft, stricter=stricter_of(goal, policy), dry_run=dry_run)


def check_base(registry: Registry, host: Host, goal: Goal) -> None:
    """Refuse an empty set of one base for a host of another; other sets show their base by their patches.

    Raises:
        BaseMismatchError: naming both.
    """
    record = find_record(registry, host)
    if not goal.patches and record is not None and goal.base not in (None, record.base):
        raise BaseMismatchError(
            f"{host.location} is base {record.base[:SHORT]}: expected {str(goal.base)[:SHORT]}, of {goal.source}",
            hint="rasura base list",
        )


def apply_to_folder(
    registry: Registry,
    model: Path,
    patch_ids: Iterable[PatchId],
    actor: Actor,
    *,
    strength: Strength = ONE,
    out: Path | None = None,
    policy: Policy | None = None,
    dry_run: bool = False,
) -> Receipt:
    """`apply` to a model on disk, or to a new copy of it, which does not stay behind when applying fails.

    Raises:
        ExistsError: `out` is there already.
        RasuraError: see `apply`.
    """
    with _opened(registry, model, out, actor, dry_run=dry_run) as host:
        return apply(registry, host, patch_ids, actor, strength=strength, policy=policy, dry_run=dry_run)


def switch_folder(
    registry: Registry,
    model: Path,
    goal: Goal,
    actor: Actor,
    *,
    out: Path | None = None,
    policy: Policy | None = None,
    expected: Stack | None = None,
    dry_run: bool = False,
) -> Receipt:
    """`switch` of a model on disk, or of a new copy of it, which does not stay behind when that fails.

    Raises:
        ExistsError: `out` is there already.
        RasuraError: see `switch`.
    """
    with _opened(registry, model, out, actor, dry_run=dry_run) as host:
        return switch(registry, host, goal, actor, policy=policy, expected=expected, dry_run=dry_run)


@contextmanager
def _opened(
    registry: Registry, model: Path, out: Path | None, actor: Actor, *, dry_run: bool
) -> Iterator[CheckpointHost]:
    """A model on disk, or a new copy of it, which is gone again if the block fails."""
    if out is None:
        yield CheckpointHost.open(model)
        return
    if dry_run:
        raise InputError(
            "a dry run looks at the model itself: expected no new copy of it", hint="rasura plan --stack STACK"
        )
    for dead in find_dead(out.absolute()):
        settle_unborn(registry, dead)
    with new_copy(model, out) as host:
        if applied_of(find_record(registry, host)):  # of a folder that is gone; the copy has nothing applied
            revert(registry, host, None, Actor(actor.name, "a new copy takes this place"), force=True)
        host.last = True  # the block's write ends with the copy at its target
        yield host


def _check_expected(applied: Stack, expected: Stack | None, host: Host) -> None:
    if expected is not None and applied != expected:
        raise ConflictError(
            f"{host.location} changed since that was planned: expected the {len(expected)} patches of then, got "
            f"{len(applied)} others or at other strengths",
            hint=look_at(host),
        )


def _check_applied(applied: Stack, ids: Iterable[PatchId] | None, host: Host) -> None:
    hint = look_at(host)
    for patch_id in ids or ():
        if patch_id not in applied:
            raise NotAppliedError(f"patch {patch_id[:SHORT]} is not applied to {host.location}", hint=hint)
    if not applied:
        raise NotAppliedError(f"nothing is applied to {host.location}", hint=hint)
