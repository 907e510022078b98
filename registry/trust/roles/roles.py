"""Whether keys have a role of the trust policy in force: `erase`, to sign patches, and `apply`, to move models.

Who moves a model signs the entries that say so (`rasura.registry.log.actors`), and that key must have the role `apply`.
A role that the policy gives to no key is not asked for, and where there is no policy, none is. What counts is the
policy that is in force when it is asked, without keys that were revoked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rasura.patches.errors import NotApprovedError, UntrustedKeyError
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.types import SHORT, Digest, KeyId, PatchId
from rasura.registry._storage.records.records import PatchRecord
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.roles.in_force import find_trust_policy
from rasura.registry.trust.roles.trust_policy import APPLY, ERASE, TrustedKey, TrustPolicy

__all__ = ["Signed", "check_erasers", "check_mover", "find_eraser", "list_holders", "name_resigner", "refuse_expired"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A patch, what it is of, and the keys that have signed it."""

    patch_id: PatchId
    concepts: tuple[str, ...]
    base: Digest
    keys: frozenset[KeyId]


def check_erasers(registry: Registry, patches: Iterable[Signed]) -> None:
    """Refuse patches that no key with the role `erase` has signed, for its concepts and base, where that is asked for.

    Raises:
        UntrustedKeyError: the first of them, with those whose signature would do.
        NotApprovedError: the policy has expired.
        AuditError: the log names a policy that is none.
    """
    policy, each = find_trust_policy(registry), tuple(patches)
    if policy is None or not each or not policy.with_role(ERASE):
        return
    refuse_expired(registry, policy)
    holders = list_holders(registry, policy, ERASE)
    for patch in each:
        allowed = {key_id: key.name for key_id, key in holders.items() if key.covers(patch.concepts, patch.base)}
        if not allowed.keys() & patch.keys:
            raise UntrustedKeyError(
                f"patch {patch.patch_id[:SHORT]} ({', '.join(patch.concepts)}): expected a signature by a key with the "
                f"role erase for it in the trust policy ({_name(allowed.values())}), got {_by(registry, patch.keys)}",
                hint=f"rasura patch sign {patch.patch_id[:SHORT]} --key {min(allowed.values(), default='NAME')}"
                if any(record.patch_id == patch.patch_id for record in registry.patches())
                else "rasura trust show",
                patch=patch.patch_id,
            )


def check_mover(registry: Registry, policy: TrustPolicy, moved: Iterable[PatchId], *, adds: bool) -> None:
    """Refuse to move a model for who has not the role `apply` for these patches, where that is asked for.

    Args:
        registry: which knows who acts.
        policy: the one in force in it.
        moved: what is put in, gets another strength, or is taken out.
        adds: whether anything is put in or made stronger; what is only taken out is so after a policy's day, too.

    Raises:
        NotApprovedError: nobody's key signs for who acts, or one without the role; or the policy has expired.
    """
    patches = tuple(moved)
    if not patches or not policy.with_role(APPLY):
        return
    if adds:
        refuse_expired(registry, policy)
    holders = list_holders(registry, policy, APPLY)
    key = None if registry.acting_key is None else holders.get(registry.acting_key)
    for record in map(registry.patch, patches):
        what = f"patch {record.patch_id[:SHORT]} ({', '.join(record.concepts)})"
        allowed = [each.name for each in holders.values() if each.covers(record.concepts, record.base)]
        if key is None or key.name not in allowed:
            got = "none" if registry.acting_key is None else f"that of {registry.key(registry.acting_key).name}"
            raise NotApprovedError(
                f"{what} is moved by who has the role apply for it in the trust policy ({_name(allowed)}): "
                f"expected their signature, got {got}",
                hint=f"--actor-key {min(allowed, default='NAME')}",
                patches=[record.patch_id],
            )


def find_eraser(registry: Registry, key: str | None) -> SigningKey:
    """The private key to sign a new patch with, looked at before anything is computed; its scopes are looked at after.

    Raises:
        UntrustedKeyError: the key has not the role `erase`, and the trust policy asks for it.
        RasuraError: as `rasura.registry.trust.keys.key_files.signer`.
    """
    private = signer(registry, key)
    policy = find_trust_policy(registry)
    if policy is not None and (given := policy.with_role(ERASE)) and private.public.key_id not in given:
        name = registry.key(private.public.key_id).name
        raise UntrustedKeyError(
            f"key {name!r} has not the role erase in the trust policy: expected one that has "
            f"({_name(key.name for key in given.values())})",
            hint=f"--key {min(key.name for key in given.values())}",
        )
    return private


def name_resigner(registry: Registry, record: PatchRecord) -> str:
    """A key that is here and whose signature would let a patch count again; "" where there is none."""
    mine = {key.key_id: key.name for key in registry.keys() if key.owned and key.trusted and key.revoked_at is None}
    policy = find_trust_policy(registry)
    if policy is not None and (given := policy.with_role(ERASE)):
        mine = {k: n for k, n in mine.items() if k in given and given[k].covers(record.concepts, record.base)}
    return min(mine.values(), default="")


def list_holders(registry: Registry, policy: TrustPolicy, role: str) -> dict[KeyId, TrustedKey]:
    """The keys that have a role in a policy and were not revoked here."""
    revoked = {key.key_id for key in registry.keys() if key.revoked_at is not None}
    return {key_id: key for key_id, key in policy.with_role(role).items() if key_id not in revoked}


def refuse_expired(registry: Registry, policy: TrustPolicy) -> None:
    """Refuse what a policy decides whose day is over.

    Raises:
        NotApprovedError: it is.
    """
    if policy.expires <= registry.now():
        raise NotApprovedError(
            f"the trust policy, version {policy.version}, expired on {policy.expires:%Y-%m-%d}, and nothing that it "
            "protects is moved: expected a newer one",
            hint="rasura trust sign FILE --key NAME",
        )


def _name(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nobody has it"


def _by(registry: Registry, keys: frozenset[KeyId]) -> str:
    names = {key.key_id: key.name for key in registry.keys()}
    return f"one by {', '.join(sorted(names.get(key, key[:SHORT]) for key in keys))}" if keys else "none"
