"""Locking a stack, and whether a lock file still tells of it what the registry does."""

from __future__ import annotations

from collections.abc import Iterable

from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.policy import Policy, list_limit_names
from rasura.patches.checks.verdict import SHORT, require
from rasura.patches.errors import ConflictError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.choices import StackRecord, digest_policy
from rasura.registry.registry import Registry
from rasura.registry.stacks.lock_file import (
    LockedBase,
    LockedPatch,
    LockFile,
    find_place,
    hint_lock,
    spell_limit,
    spell_measured,
)
from rasura.registry.trust.register_patch import find_signers
from rasura.registry.trust.verified_patch import manifest_of

__all__ = ["check_claims", "check_lock", "lock_stack"]


def lock_stack(registry: Registry, stack: StackRecord) -> LockFile:
    """What the lock of a stack says, everything verified anew.

    Raises:
        CheckRefusedError: the composer does not accept the stack under the policy in force.
        VerificationError, NotFoundError: a patch is not good, or not here.
    """
    from rasura.registry.trust.check import find_worst, judge_registered  # needs torch; reading a lock does not

    policy, members = registry.policy(), Stack.of_sixteenths(stack.patches)
    found = judge_registered(registry, members, policy)
    worst = find_worst(require(found.verdict))
    patches = (
        LockedPatch(registry.patch(p).concepts[0], p, strength, found.keys[p], dict(registry.patch(p).files))
        for p, strength in members.items()
    )
    return LockFile(
        stack.name,
        _base(registry, stack.base, stack.patches),
        digest_policy(_told_of(policy)),
        {name: spell_limit(getattr(policy, name)) for name in list_limit_names()},
        policy.separable,
        {check: (spell_measured(number.value), spell_measured(number.limit)) for check, number in worst.items()},
        tuple(sorted(patches, key=find_place)),
    )


def _told_of(policy: Policy) -> Policy:
    """Of a policy what a lock says: what its patches are held to, and not what people are."""
    return Policy(**{name: getattr(policy, name) for name in list_limit_names()}, separable=policy.separable)


def check_lock(registry: Registry, stack: StackRecord, lock: LockFile) -> LockFile:
    """The lock of a stack as it would be written now, if it is the same but for the verdict's numbers.

    Raises:
        ConflictError: it is not; `details["differences"]` says where.
        CheckRefusedError: the composer does not accept the stack any more.
        VerificationError, NotFoundError: a patch is not good, or not here.
    """
    now = lock_stack(registry, stack)
    differences = [*_differences(lock, now)]
    if differences:
        raise ConflictError(
            f"the lock is not what stack {stack.name} is: {'; '.join(differences)}",
            hint=hint_lock(stack.name),
            differences=differences,
        )
    return now


def check_claims(registry: Registry, lock: LockFile) -> None:
    """Refuse a lock that says of its base, patches or policy what is not so here: people read it before they use it.

    Raises:
        ConflictError: `details["differences"]` says what.
        NotFoundError: its base or a patch is not in this registry.
    """
    found = [] if digest_policy(lock.policy) == lock.policy_sha256 else ["its limits are not the policy that it names"]
    base = _base(registry, lock.base.sha256, lock.members)
    found += [
        f"another base: {name}" for name in LockedBase.__slots__ if getattr(lock.base, name) != getattr(base, name)
    ]
    for patch in lock.patches:
        record = registry.patch(patch.patch_id)
        for what, told, here in (
            ("concept", patch.concept, (record.concepts[0],)),
            ("key", patch.key_id, find_signers(registry, patch.patch_id)),
        ):
            if told not in here:
                found.append(f"{patch.patch_id[:SHORT]} has another {what}")
    if found:
        raise ConflictError(
            f"the lock of stack {lock.stack} says what is not so here: {'; '.join(found)}",
            hint=hint_lock(lock.stack),
            differences=found,
        )


def _differences(old: LockFile, new: LockFile) -> list[str]:
    found = [] if old.stack == new.stack else [f"it locks stack {old.stack}"]
    found += [
        f"another base: {name}" for name in LockedBase.__slots__ if getattr(old.base, name) != getattr(new.base, name)
    ]
    if (old.policy_sha256, old.limits, old.separable) != (new.policy_sha256, new.limits, new.separable):
        found.append(f"policy {old.policy_sha256[:SHORT]}, now {new.policy_sha256[:SHORT]}")
    before, after = ({patch.patch_id: patch for patch in lock.patches} for lock in (old, new))
    for patch_id in sorted({*before, *after}):
        if patch_id not in after or patch_id not in before:
            found.append(f"{patch_id[:SHORT]} is only in {'the lock' if patch_id in before else 'the stack'}")
        elif before[patch_id] != after[patch_id]:
            found.append(f"{patch_id[:SHORT]} has another strength, key, concept or files")
    return found


def _base(registry: Registry, digest: Digest, patches: Iterable[PatchId]) -> LockedBase:
    record = registry.base(digest)
    touched = {
        (p.name, p.dtype, p.shape, p.sha256)
        for patch_id in patches
        for p in manifest_of(registry, patch_id).base.parameters
    }
    return LockedBase(digest, record.text_encoder, record.tokenizer, digest_tensor_set(touched))
