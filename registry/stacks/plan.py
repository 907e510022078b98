"""Making a plan, which only looks, and carrying one out, which does exactly what it says or nothing."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from rasura.patches._io.tensor_bytes import as_tensor, count_bytes, digest_tensor_set, digest_tensors
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import SHORT, Accepted
from rasura.patches.errors import ConflictError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import Host
from rasura.patches.types import ParamName
from rasura.registry._storage.records.choices import digest_policy
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.goal import Goal, stricter_of
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import SWITCH, applied_of, find_record, sight_host
from rasura.registry.apply.motion import move
from rasura.registry.apply.motion_parts import Motion
from rasura.registry.apply.operations import check_base
from rasura.registry.apply.prepare import prepare_motion
from rasura.registry.apply.receipt import Actor, Receipt
from rasura.registry.registry import Registry
from rasura.registry.stacks.plan_file import Plan, Side
from rasura.registry.trust.limits import merge_policies

__all__ = ["Planned", "apply_plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what the composer said of the set; accepted, or there would be no plan.

    Attributes:
        plan: the document.
        verdict: what the composer said.
        beside: the parameters of a live model that would run as a side branch, because they are quantised.
        unchanged: the share of the merged parameters' weights that keep the original's bits: what patches add is less
            than their dtype resolves.
    """

    plan: Plan
    verdict: Accepted
    beside: tuple[ParamName, ...] = ()
    unchanged: float = 0.0


def make_plan(registry: Registry, host: Host, goal: Goal, *, policy: Policy | None = None) -> Planned:
    """What `switch` would do to a model now. Nothing is written, neither model nor registry nor log.

    Args:
        registry: where.
        host: the model.
        goal: the wanted set.
        policy: limits beside those of the registry's policy.

    Raises:
        RasuraError: whatever would refuse the motion.
    """
    head = registry.head()
    record = sight_host(registry, host)
    check_base(registry, host, goal)
    present, limits = applied_of(record), merge_policies(registry, stricter_of(goal, policy))
    motion = prepare_motion(registry, Glance(host), present, goal.patches, limits) if present or goal.patches else None
    nothing = digest_tensor_set(())
    base = motion.record.base if motion else goal.base or (record.base if record else None)
    assert base is not None
    plan = Plan(
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        source=goal.source,
        host=record.host_id if record else None,
        location=host.location,
        base=base,
        before=Side(present, motion.before if motion else nothing),
        after=Side(goal.patches, motion.after if motion else nothing),
        parameters=motion.parameters if motion else 0,
        size_bytes=_written(host, motion) if motion else 0,
        policy=digest_policy(registry.policy()),
        limits=limits.to_toml(),
        keys=tuple(sorted(set(motion.keys.values()))) if motion else (),
    )
    if motion is None:
        return Planned(plan, Accepted(()))
    branches = tuple(name for name, factors in motion.branches.items() if factors)
    return Planned(plan, motion.verdict, branches, _unchanged(host, motion))


def apply_plan(registry: Registry, plan: Plan, actor: Actor, *, dry_run: bool = False) -> Receipt:
    """Do what a plan says, or with `dry_run` say whether it could be done.

    Raises:
        ConflictError: something that it rests on is otherwise now; nothing changed.
        RasuraError: see `rasura.registry.apply.operations.switch`.
    """
    host = CheckpointHost.open(Path(plan.location))

    def wanted(present: Stack) -> Stack:
        _check_registry(registry, plan)
        _check_source(registry, plan)
        _check_host(registry, host, plan, present)
        return plan.after.patches

    def expect(motion: Motion) -> None:
        limits = merge_policies(registry, Policy.parse(plan.limits.encode())).to_toml()
        for what, told, found in (
            ("base", plan.base, motion.record.base),
            ("number of parameters", plan.parameters, motion.parameters),
            ("number of bytes", plan.size_bytes, _written(host, motion)),
            ("list of signers", plan.keys, tuple(sorted(set(motion.keys.values())))),
            ("policy's text", plan.limits, limits),
        ):
            if told != found:
                raise _stale(plan, f"its {what} is not what the motion would have")
        for when, told, found in (
            ("before", plan.before.state, motion.before),
            ("after", plan.after.state, motion.after),
        ):
            if told != found:
                raise _stale(plan, f"the model's state {when} is {found[:SHORT]}, not {told[:SHORT]}")

    details = {"goal": plan.source, "plan": plan.digest}
    draft = Draft(actor.name, actor.reason, SWITCH, "success", tuple(plan.after.patches), details=details)
    limits = Policy.parse(plan.limits.encode())
    return move(registry, host, wanted, draft, stricter=limits, expect=expect, dry_run=dry_run)


def _check_registry(registry: Registry, plan: Plan) -> None:
    if plan.origin != registry.origin:
        raise _stale(plan, f"it was made with the registry of {plan.origin}")
    root = registry.root_at(plan.size)
    if root is None or root.hex() != plan.root:
        raise _stale(plan, f"the log does not begin with the {plan.size} entries that it names")
    if (found := digest_policy(registry.policy())) != plan.policy:
        raise _stale(plan, f"the policy is {found[:SHORT]}, not {plan.policy[:SHORT]}")
    trusted = {key.key_id for key in registry.keys() if key.trusted and key.revoked_at is None}
    for key_id in plan.keys:
        if key_id not in trusted:
            raise _stale(plan, f"key {key_id[:SHORT]}, which signed its patches, is not trusted any more")


def _check_source(registry: Registry, plan: Plan) -> None:
    """Refuse a plan that names a stack which is not what the plan reaches: a reviewer reads the name.

    The path of a lock file, or a name that no stack has here, is a comment.
    """
    named = next((stack for stack in registry.stacks() if stack.name == plan.source), None)
    if named is not None and (named.base, Stack.of_sixteenths(named.patches)) != (plan.base, plan.after.patches):
        raise _stale(plan, f"stack {plan.source} is not the set that the plan reaches")


def _check_host(registry: Registry, host: Host, plan: Plan, present: Stack) -> None:
    record = find_record(registry, host)
    found = record.host_id if record else None
    if plan.host is not None and found != plan.host:
        raise _stale(plan, "another model lies in this folder")
    if present != plan.before.patches:
        raise _stale(plan, f"the model has {_counted(present)} where it had {_counted(plan.before.patches)}")


def _counted(patches: Stack) -> str:
    if not patches:
        return "no patch"
    listed = [f"{p[:SHORT]}" + ("" if s == ONE else f"={s}") for p, s in patches.items()]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")  # noqa: PLR2004


def _stale(plan: Plan, why: str) -> ConflictError:
    source, location = shlex.quote(plan.source), shlex.quote(plan.location)
    return ConflictError(
        f"the plan is stale: {why}", hint=f"rasura plan --stack {source} --model {location} -o plan.json"
    )


def _unchanged(host: Host, motion: Motion) -> float:
    patched = {name: as_tensor(value) for name, value in motion.tensors.items() if name not in motion.forget}
    originals = host.originals(patched)
    same = sum(int((originals[name] == tensor.cpu()).sum()) for name, tensor in patched.items())
    return same / max(sum(tensor.numel() for tensor in patched.values()), 1)


def _written(host: Host, motion: Motion) -> int:
    """Bytes of the parameters whose values differ from those that are there."""
    present = host.digests(motion.tensors)
    wanted = digest_tensors(motion.tensors)
    return sum(count_bytes(value) for name, value in motion.tensors.items() if wanted[name] != present[name])
