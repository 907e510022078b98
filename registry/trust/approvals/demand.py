"""Whether what is put on a model, or into a stack, has the approvals that the trust policy asks for there.

Taking out needs none. What is protected is the base of a model, however patches get there, and a stack by its name:
what is put into it, and what a switch or a plan to it puts on a model.
"""

from __future__ import annotations

from collections.abc import Iterable

from rasura.patches.errors import NotApprovedError
from rasura.patches.types import SHORT, PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.approvals.approve import Subject, read_approvals
from rasura.registry.trust.register_patch import find_signers
from rasura.registry.trust.roles.in_force import find_trust_policy
from rasura.registry.trust.roles.roles import Signed, check_erasers, refuse_expired
from rasura.registry.trust.roles.trust_policy import TrustPolicy

__all__ = ["require_approved", "require_erased"]


def require_approved(
    registry: Registry,
    added: Iterable[PatchId],
    *,
    stack: str | None = None,
    plan: str | None = None,
    on_model: bool = True,
) -> None:
    """Refuse patches that lack an approval.

    Args:
        registry: whose trust policy counts.
        added: what is put in, or gets another strength.
        stack: the stack that it goes into, or to which a model is moved.
        plan: digest of the plan that is carried out; who approved it approved all of it.
        on_model: whether they go onto a model; a stack is none, so that what protects a base does not ask there.

    Raises:
        NotApprovedError: approvals are missing, naming each patch, or the policy has expired.
        AuditError: the log names a policy or an approval that is none.
    """
    patches = tuple(added)
    policy = find_trust_policy(registry) if patches else None
    if policy is None:
        return
    wanted = {p: needed for p in patches if (needed := _needed(registry, policy, p, stack, on_model=on_model))}
    if not wanted:
        return
    refuse_expired(registry, policy)
    each = {patch_id: Subject("patch", patch_id) for patch_id in wanted}
    whole = Subject("plan", plan or "")
    approvals = read_approvals(registry, policy, [*each.values(), *([whole] if plan else [])])
    lacking, said = [], []
    for patch_id, needed in wanted.items():
        record = registry.patch(patch_id)
        found = {**approvals.get(whole, {}), **approvals[each[patch_id]]}
        names = sorted(key.name for key in found.values() if key.covers(record.concepts, record.base))
        if len(names) < needed:
            lacking.append(patch_id)
            by = f"by {', '.join(names)}" if names else "by nobody"
            said.append(f"{patch_id[:SHORT]} ({', '.join(record.concepts)}) needs {needed}, and is approved {by}")
    if lacking:
        short = " ".join(patch_id[:SHORT] for patch_id in lacking)
        raise NotApprovedError(
            f"approvals are missing: patch {'; patch '.join(said)}",
            hint=f"rasura patch approve {short} --key NAME",
            patches=lacking,
        )


def require_erased(registry: Registry, added: Iterable[PatchId]) -> None:
    """Refuse patches that nobody has signed who may, where the trust policy says who may erase.

    Args:
        registry: whose trust policy counts.
        added: what is put in, or gets another strength.

    Raises:
        UntrustedKeyError, NotApprovedError: see `rasura.registry.trust.roles.roles.check_erasers`.
    """
    told = []
    for record in map(registry.patch, added):
        keys = frozenset(find_signers(registry, record.patch_id))
        told.append(Signed(record.patch_id, record.concepts, record.base, keys))
    check_erasers(registry, told)


def _needed(registry: Registry, policy: TrustPolicy, patch_id: PatchId, stack: str | None, *, on_model: bool) -> int:
    base = registry.patch(patch_id).base if on_model else None
    found = 0
    for rule in policy.protect:
        if (rule.base is not None and rule.base == base) or (rule.stack is not None and rule.stack == stack):
            found = max(found, rule.approvals)
    return found
