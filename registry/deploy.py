"""Moving a host from one set of patches to another.

The state of a host is a set, so there is one motion: from the set that is applied to the set that is wanted. Every
touched parameter gets the value of the new set, computed from its pristine original; a parameter that no wanted patch
touches gets the original back. The steps, in this order:

(1) verify: signatures, trust and digests of every wanted patch; the host is what the registry last wrote; its pristine
    weights are the base of every wanted patch;
(2) check: the composer accepts the wanted stack;
(3) an entry *begun* with the digests before and the predicted digests after;
(4) write, all or nothing; the host reads back and compares;
(5) an entry *done* and the host's new record, in one transaction.

All of it happens while nobody else may move the host. A *begun* without an end is settled by the next motion, see
`rasura.registry.standing`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rasura.patches.errors import (
    AlreadyAppliedError,
    InputError,
    NotAppliedError,
    RasuraError,
    StrengthError,
)
from rasura.patches.hosts import Host
from rasura.patches.increment import ONE, Strength
from rasura.patches.names import Digest, PatchId
from rasura.patches.projection import DEFAULT_POLICY, SHORT, Policy
from rasura.registry.ending import ended_by
from rasura.registry.motion import Motion, prepared
from rasura.registry.records import Draft
from rasura.registry.standing import (
    APPLY,
    REVERT,
    STRENGTH,
    find_record,
    location_of,
    model_option,
    present_set,
    settle,
    strengths,
)

if TYPE_CHECKING:
    from rasura.registry.store import Registry


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and why; both go into the audit log."""

    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a motion did.

    Attributes:
        location: the host.
        applied: the set that is applied now.
        parameters: how many parameters the motion touched.
        before: tensor-set digest of those parameters before.
        after: the same after; equal to what was predicted.
        pristine: whether nothing is applied any more.
    """

    location: str
    applied: Mapping[PatchId, Strength]
    parameters: int
    before: Digest
    after: Digest
    pristine: bool


Wanted: TypeAlias = Callable[[Mapping[PatchId, Strength]], Mapping[PatchId, Strength]]
"""From the set that is applied to the set that is wanted; raises where that cannot be."""


def apply(
    registry: Registry,
    host: Host,
    patch_ids: Iterable[PatchId],
    actor: Actor,
    *,
    strength: Strength = ONE,
    policy: Policy = DEFAULT_POLICY,
) -> Receipt:
    """Apply patches to a host, together with those that are applied already.

    Raises:
        AlreadyAppliedError: one of them is applied; nothing changed.
        StrengthError: strength 0.
        NotFoundError: the base of the patches is not in this registry.
        BusyError: somebody else is moving the host.
        VerificationError, BaseMismatchError, DriftError, CheckRefusedError, HostError: see the steps; nothing changed.
    """
    ids = tuple(dict.fromkeys(patch_ids))
    if strength.sixteenths == 0:
        raise StrengthError("strength 0 applies nothing: expected another", hint="rasura patch revert ID --model DIR")

    def wanted(applied: Mapping[PatchId, Strength]) -> dict[PatchId, Strength]:
        for patch_id in ids:
            if patch_id in applied:
                raise AlreadyAppliedError(
                    f"patch {patch_id[:SHORT]} is applied to {host.location} already",
                    hint=f"rasura patch status {model_option(host)}",
                )
        return {**applied, **dict.fromkeys(ids, strength)}

    draft = Draft(actor.name, actor.reason, APPLY, "success", ids, details={STRENGTH: strength.sixteenths})
    return _move(registry, host, wanted, draft, policy)


def revert(
    registry: Registry,
    host: Host,
    patch_ids: Iterable[PatchId] | None,
    actor: Actor,
    *,
    policy: Policy = DEFAULT_POLICY,
    force: bool = False,
) -> Receipt:
    """Take patches out of a host's set; None takes out all of them.

    Args:
        registry: which says what is applied.
        host: the model.
        patch_ids: what to take out.
        actor: who and why.
        policy: limits for what stays.
        force: with None only: also where the host changed outside the registry. Its touched parameters get their
            originals, which must be those of the base.

    Raises:
        NotAppliedError: one of them is not applied; nothing changed.
        InputError: `force` with patches named.
        DriftError: the host is not what the registry last wrote, or with `force`: has not its originals; nothing
            changed.
        BusyError: somebody else is moving the host.
    """
    ids = None if patch_ids is None else tuple(dict.fromkeys(patch_ids))
    if force and ids is not None:
        raise InputError(
            "force puts all originals back: expected no patch ids", hint="rasura patch revert --all --force"
        )

    def wanted(applied: Mapping[PatchId, Strength]) -> dict[PatchId, Strength]:
        _check_applied(applied, ids, host)
        return {} if ids is None else {p: s for p, s in applied.items() if p not in ids}

    draft = Draft(actor.name, actor.reason, REVERT, "success", ids or (), details={"force": "yes"} if force else {})
    return _move(registry, host, wanted, draft, policy, force=force)


def apply_to_folder(
    registry: Registry,
    model: Path,
    patch_ids: Iterable[PatchId],
    actor: Actor,
    *,
    strength: Strength = ONE,
    out: Path | None = None,
) -> Receipt:
    """`apply` to a diffusers folder, or to a new copy of it, which does not stay behind when applying fails.

    Raises:
        ExistsError: `out` is there already.
        RasuraError: see `apply`.
    """
    from rasura.patches.hosts.checkpoint import CheckpointHost
    from rasura.patches.hosts.copying import copy_model

    if out is None:
        return apply(registry, CheckpointHost.open(model), patch_ids, actor, strength=strength)
    copy_model(model, out)
    try:
        host = CheckpointHost.open(out)
        if _recorded(registry, host):  # of a folder that was here and is gone; the copy has nothing applied
            revert(registry, host, None, Actor(actor.name, "a new copy takes this place"), force=True)
        return apply(registry, host, patch_ids, actor, strength=strength)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _check_applied(applied: Mapping[PatchId, Strength], ids: Iterable[PatchId] | None, host: Host) -> None:
    hint = f"rasura patch status {model_option(host)}"
    for patch_id in ids or ():
        if patch_id not in applied:
            raise NotAppliedError(f"patch {patch_id[:SHORT]} is not applied to {host.location}", hint=hint)
    if not applied:
        raise NotAppliedError(f"nothing is applied to {host.location}", hint=hint)


def _move(
    registry: Registry, host: Host, wanted: Wanted, draft: Draft, policy: Policy, *, force: bool = False
) -> Receipt:
    draft = replace(draft, details={**draft.details, "location": location_of(host)})
    with ExitStack() as held:
        try:
            held.enter_context(host.alone())
            settle(registry, host)
            present = _recorded(registry, host) if force else present_set(registry, host)
            motion = prepared(registry, host, present, wanted(present), policy)  # (1), (2)
        except RasuraError as error:
            registry.note(ended_by(draft, error))
            raise
        return _carried_out(registry, host, replace(draft, patches=draft.patches or tuple(present)), motion)


def _carried_out(registry: Registry, host: Host, draft: Draft, motion: Motion) -> Receipt:
    record = motion.record
    draft = replace(
        draft,
        base=record.base,
        host=record.host_id,
        before=motion.before,
        after=motion.after,
        details={**draft.details, "parameters": len(motion.tensors)},
    )
    begun = registry.note(replace(draft, outcome="begun"))  # (3)
    try:
        host.write(motion.tensors, forget=motion.forget)  # (4)
    except RasuraError as error:
        registry.note(replace(ended_by(draft, error), outcome="failed", after=motion.before, closes=begun.index))
        raise
    registry.set_host(record, replace(draft, outcome="done", closes=begun.index))  # (5)
    count, pristine = len(motion.tensors), not record.applied
    return Receipt(host.location, strengths(record), count, motion.before, motion.after, pristine)


def _recorded(registry: Registry, host: Host) -> dict[PatchId, Strength]:
    record = find_record(registry, host)
    return strengths(record) if record else {}
