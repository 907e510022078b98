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

A *begun* without an end is settled by the next command: the host's digests tell which side it is on.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rasura.patches.base import check_touched
from rasura.patches.compose import composed, layers_of
from rasura.patches.errors import (
    AlreadyAppliedError,
    BaseMismatchError,
    ConflictError,
    DriftError,
    NotAppliedError,
    RasuraError,
    RefusedError,
    VerificationError,
)
from rasura.patches.hosts import Host
from rasura.patches.increment import ONE, Strength
from rasura.patches.names import Digest, ParamName, PatchId
from rasura.patches.projection import DEFAULT_POLICY, SHORT, Member, Policy, check, require
from rasura.patches.tensors import dtype_name, tensor_digest, tensor_set_digest
from rasura.registry.intake import load_verified, manifest_of
from rasura.registry.records import Draft, HostRecord

if TYPE_CHECKING:
    import torch

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


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """A motion that passed steps (1) and (2)."""

    record: HostRecord
    tensors: Mapping[ParamName, torch.Tensor]
    forget: frozenset[ParamName]
    before: Digest
    after: Digest


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
        VerificationError, BaseMismatchError, DriftError, CheckRefusedError, HostError: see the steps; nothing changed.
    """
    ids = tuple(dict.fromkeys(patch_ids))

    def wanted(applied: Mapping[PatchId, Strength]) -> dict[PatchId, Strength]:
        for patch_id in ids:
            if patch_id in applied:
                raise AlreadyAppliedError(
                    f"patch {patch_id[:SHORT]} is applied to {host.location} already",
                    hint=f"rasura patch status --model {host.location}",
                )
        return {**applied, **dict.fromkeys(ids, strength)}

    return _move(registry, host, wanted, Draft(actor.name, actor.reason, "patch.apply", "success", ids), policy)


def revert(
    registry: Registry,
    host: Host,
    patch_ids: Iterable[PatchId] | None,
    actor: Actor,
    *,
    policy: Policy = DEFAULT_POLICY,
) -> Receipt:
    """Take patches out of a host's set; None takes out all of them.

    Raises:
        NotAppliedError: one of them is not applied; nothing changed.
        DriftError: the host is not what the registry last wrote; nothing changed.
    """
    ids = None if patch_ids is None else tuple(dict.fromkeys(patch_ids))

    def wanted(applied: Mapping[PatchId, Strength]) -> dict[PatchId, Strength]:
        for patch_id in ids or ():
            if patch_id not in applied:
                raise NotAppliedError(
                    f"patch {patch_id[:SHORT]} is not applied to {host.location}",
                    hint=f"rasura patch status --model {host.location}",
                )
        if not applied:
            raise NotAppliedError(
                f"nothing is applied to {host.location}", hint=f"rasura patch status --model {host.location}"
            )
        return {} if ids is None else {p: s for p, s in applied.items() if p not in ids}

    draft = Draft(actor.name, actor.reason, "patch.revert", "success", ids or ())
    return _move(registry, host, wanted, draft, policy)


Wanted: TypeAlias = Callable[[Mapping[PatchId, Strength]], Mapping[PatchId, Strength]]


def _move(registry: Registry, host: Host, wanted: Wanted, draft: Draft, policy: Policy) -> Receipt:
    draft = replace(draft, details={"location": host.location})
    try:
        present = settle(registry, host)
        motion = _prepared(registry, host, present, wanted(present), policy)  # (1), (2)
    except RasuraError as error:
        refused = isinstance(error, RefusedError | ConflictError | VerificationError | BaseMismatchError | DriftError)
        registry.note(replace(draft, outcome="refused" if refused else "failed", error=error.code))
        raise
    record = motion.record
    draft = replace(
        draft,
        patches=draft.patches or tuple(present),
        base=record.base,
        host=record.host_id,
        before=motion.before,
        after=motion.after,
        details={"location": host.location, "parameters": len(motion.tensors), "stack": _spelled(record.applied)},
    )
    begun = registry.note(replace(draft, outcome="begun"))  # (3)
    try:
        host.write(motion.tensors, forget=motion.forget)  # (4)
    except RasuraError as error:
        registry.note(replace(draft, outcome="failed", error=error.code, after=motion.before, closes=begun.index))
        raise
    registry.set_host(record, replace(draft, outcome="done", closes=begun.index))  # (5)
    return Receipt(
        host.location, strengths(record), len(motion.tensors), motion.before, motion.after, not record.applied
    )


def _prepared(
    registry: Registry,
    host: Host,
    present: Mapping[PatchId, Strength],
    wanted: Mapping[PatchId, Strength],
    policy: Policy,
) -> _Motion:
    stack = [Member(load_verified(registry, patch_id), strength) for patch_id, strength in wanted.items()]
    require(check(stack, policy))
    layers = {layer.name: layer for layer in layers_of((m.patch.tensors.increments, m.strength) for m in stack)}
    touched = sorted({*layers, *_touched(registry, present)})
    _check_names(host, touched)
    originals = host.originals(touched)
    for member in stack:
        check_touched(member.patch.manifest.base.parameters, originals, host.location)
    host.ensure_writable(touched)
    tensors = {name: composed(originals[name], layers[name].terms if name in layers else ()) for name in touched}
    return _Motion(
        HostRecord(
            host_id=_host_id(registry, host),
            location=host.location,
            base=_base_of(registry, stack) or _recorded_base(registry, host),
            applied={patch_id: strength.sixteenths for patch_id, strength in wanted.items()},
            state=_digest({name: tensors[name] for name in layers}),
            updated_at=registry.now(),
        ),
        tensors,
        frozenset(name for name in touched if name not in layers),
        state_of(host, touched),
        _digest(tensors),
    )


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
        return apply(registry, CheckpointHost.open(out), patch_ids, actor, strength=strength)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def present_set(registry: Registry, host: Host) -> dict[PatchId, Strength]:
    """What the registry says is applied, compared with what is there.

    Raises:
        DriftError: the host's touched parameters are not those that the registry last wrote, or the host keeps
            originals that this registry knows nothing of.
    """
    record = find_record(registry, host)
    applied = strengths(record) if record else {}
    if not applied and host.kept():
        raise DriftError(
            f"{host.location} holds patches that this registry did not apply: "
            f"{len(host.kept())} parameters have kept originals",
            hint="use the registry that applied them (--registry)",
        )
    if record and applied:
        names = sorted(_touched(registry, applied))
        _check_names(host, names)
        if state_of(host, names) != record.state:
            raise DriftError(
                f"{host.location} changed outside the registry: expected state {record.state[:SHORT]}, got "
                f"{state_of(host, names)[:SHORT]}",
                hint=f"rasura patch status --deep --model {host.location}",
            )
    return applied


def settle(registry: Registry, host: Host) -> dict[PatchId, Strength]:
    """Close an interrupted motion, if there is one, and give the set that is applied.

    The interrupted command wrote down the digests of both sides; the host, which undoes half a write when it is opened,
    is on one of them.

    Raises:
        DriftError: it is on neither.
    """
    for entry in registry.unfinished():
        if entry.details.get("location") != host.location:
            continue
        stack = _read_spelled(str(entry.details.get("stack", "")))
        before = find_record(registry, host)
        touched = sorted({*_touched(registry, stack), *_touched(registry, strengths(before) if before else {})})
        state = state_of(host, touched)
        draft = Draft(
            entry.actor,
            entry.reason,
            entry.action,
            "failed",
            patches=entry.patches,
            base=entry.base,
            host=entry.host,
            before=entry.before,
            after=state,
            details={**entry.details, "settled": "yes"},
            error="interrupted",
            closes=entry.index,
        )
        if state == entry.after:
            record = HostRecord(
                host_id=entry.host or _host_id(registry, host),
                location=host.location,
                base=entry.base or Digest(""),
                applied={patch_id: strength.sixteenths for patch_id, strength in stack.items()},
                state=state_of(host, sorted(_touched(registry, stack))),
                updated_at=registry.now(),
            )
            registry.set_host(record, replace(draft, outcome="done", error=None))
        else:
            registry.note(draft)
    return present_set(registry, host)


def state_of(host: Host, names: Iterable[ParamName]) -> Digest:
    """Tensor-set digest of some parameters as they are now."""
    infos, chosen = host.parameters(), list(names)
    digests = host.digests(chosen)
    return tensor_set_digest((name, infos[name].dtype, infos[name].shape, digests[name]) for name in chosen)


def _digest(tensors: Mapping[ParamName, torch.Tensor]) -> Digest:
    return tensor_set_digest((n, dtype_name(t.dtype), tuple(t.shape), tensor_digest(t)) for n, t in tensors.items())


def find_record(registry: Registry, host: Host) -> HostRecord | None:
    """What the registry knows of a host: by the identity it carries, which moves with it, else by its location."""
    return registry.find_host(str(uuid.UUID(host.host_id))) or registry.find_host(host.location)


def _host_id(registry: Registry, host: Host) -> str:
    record = find_record(registry, host)
    return record.host_id if record else str(uuid.UUID(host.host_id))


def _touched(registry: Registry, patch_ids: Iterable[PatchId]) -> set[ParamName]:
    return {p.name for patch_id in patch_ids for p in manifest_of(registry, patch_id).base.parameters}


def _check_names(host: Host, names: Iterable[ParamName]) -> None:
    known = host.parameters()
    for name in names:
        if name not in known:
            raise BaseMismatchError(
                f"{host.location} has no parameter {name}: the patch was made for another model",
                hint="rasura base list",
            )


def strengths(record: HostRecord) -> dict[PatchId, Strength]:
    """The applied set of a record."""
    return {patch_id: Strength(sixteenths) for patch_id, sixteenths in record.applied.items()}


def _base_of(registry: Registry, stack: Iterable[Member]) -> Digest | None:
    return next((registry.patch(member.patch_id).base for member in stack), None)


def _recorded_base(registry: Registry, host: Host) -> Digest:
    record = find_record(registry, host)
    assert record is not None  # only a host that had patches can come to have none
    return record.base


def _spelled(applied: Mapping[PatchId, int]) -> str:
    return " ".join(f"{patch_id}:{sixteenths}" for patch_id, sixteenths in sorted(applied.items()))


def _read_spelled(text: str) -> dict[PatchId, Strength]:
    pairs = (item.partition(":") for item in text.split())
    return {PatchId(patch_id): Strength(int(sixteenths)) for patch_id, _, sixteenths in pairs}
