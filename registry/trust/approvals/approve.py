"""Approving: a person's key says of a patch, or of a plan, that it may be put where the trust policy asks for that.

    envelope   DSSE    `application/vnd.rasura.approval+json`, one signature
    payload    JSON    {"format":"rasura-approval/1", "origin":"<log>", "approves":"patch"|"plan", "sha256":"<digest>"}

Each is an entry `patch.approve` or `plan.approve`, and the envelope a blob that it names. What counts is decided when
it is asked for: by the policy in force then, its roles and scopes, and the keys that were revoked until then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from rasura.patches._io import canonical_json
from rasura.patches.errors import AuditError, InputError, NotFoundError, RasuraError, SignatureError
from rasura.patches.format.signatures.dsse_envelope import check_signature, encode_joined, join_signature, read_joined
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.types import SHORT, Digest, KeyId, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft, EntryRecord
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.roles.in_force import find_trust_policy
from rasura.registry.trust.roles.roles import list_holders
from rasura.registry.trust.roles.trust_policy import APPROVE, TrustedKey, TrustPolicy
from rasura.registry.trust.verified_patch import load_signed

__all__ = ["Approved", "Subject", "approve_patches", "approve_plan", "find_approvals", "read_approvals"]

Kind: TypeAlias = Literal["patch", "plan"]

FORMAT: Final = "rasura-approval/1"
PAYLOAD_TYPE: Final = "application/vnd.rasura.approval+json"
_MAX_BYTES: Final = 16 * 1024
_APPROVAL: Final = "approval"
_PLAN: Final = "plan"
_KEY: Final = "key"
_WHAT: Final = "approval"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is approved: a patch by its identity, or a plan by the digest of its file."""

    kind: Kind
    digest: str

    @property
    def action(self) -> str:
        """What the entry is called."""
        return "patch.approve" if self.kind == "patch" else "plan.approve"

    def to_payload(self, origin: str) -> bytes:
        """The bytes that are signed."""
        return canonical_json.dumps({"format": FORMAT, "origin": origin, "approves": self.kind, "sha256": self.digest})


@dataclass(frozen=True, slots=True)
class Approved:
    """A subject, the key that approved it, and whether that key had not approved it before."""

    subject: Subject
    key_id: KeyId
    new: bool


def approve_patches(
    registry: Registry, patch_ids: Sequence[PatchId], key: str | None, draft: Draft, *, dry_run: bool = False
) -> tuple[Approved, ...]:
    """Approve registered patches, each verified anew.

    Args:
        registry: where they are.
        patch_ids: which.
        key: name of the key that approves; None takes the only one.
        draft: the entry of each; action, patch and key are filled in.
        dry_run: only say what would be new.

    Raises:
        NotFoundError: there is no trust policy, no such patch or key.
        InputError: the key has not the role `approve`, or not for these patches.
        VerificationError: a patch is not good; logged as refused.
    """
    with log_failure(registry, replace(draft, action="patch.approve", patches=tuple(patch_ids)), dry_run=dry_run):
        private = signer(registry, key)
        for patch_id in patch_ids:
            load_signed(registry, patch_id)
        _check_role(registry, private, patch_ids)
        done = []
        for patch_id in dict.fromkeys(patch_ids):
            noted = replace(draft, patches=(patch_id,), base=registry.patch(patch_id).base)
            done.append(_approve(registry, Subject("patch", patch_id), private, noted, dry_run=dry_run))
    return tuple(done)


def approve_plan(
    registry: Registry,
    digest: Digest,
    patch_ids: Sequence[PatchId],
    key: str | None,
    draft: Draft,
    *,
    dry_run: bool = False,
) -> Approved:
    """Approve a plan: all that it puts in, together, and on that model only.

    Args:
        registry: whose plan it is.
        digest: of the plan's file.
        patch_ids: what it puts in; the key must be one that approves each of them.
        key: as for `approve_patches`.
        draft: the entry; action, plan, patches and key are filled in.
        dry_run: only say whether it would be new.

    Raises:
        NotFoundError, InputError: as for `approve_patches`.
    """
    subject = Subject("plan", digest)
    noted = replace(draft, patches=tuple(patch_ids), details={**draft.details, _PLAN: digest})
    with log_failure(registry, replace(noted, action=subject.action), dry_run=dry_run):
        private = signer(registry, key)
        _check_role(registry, private, patch_ids)
        return _approve(registry, subject, private, noted, dry_run=dry_run)


def find_approvals(registry: Registry, subject: Subject) -> dict[KeyId, TrustedKey]:
    """The keys that have approved something and may approve under the policy in force; their scopes are not looked at.

    Raises:
        AuditError: an entry names an approval that is none of that key.
    """
    policy = find_trust_policy(registry)
    return {} if policy is None else dict(read_approvals(registry, policy, [subject])[subject])


def read_approvals(
    registry: Registry, policy: TrustPolicy, subjects: Collection[Subject]
) -> Mapping[Subject, Mapping[KeyId, TrustedKey]]:
    """As `find_approvals`, of several subjects at once, under a policy that was found.

    Raises:
        AuditError: an entry names an approval that is none of that key.
    """
    allowed = list_holders(registry, policy, APPROVE)
    found: dict[Subject, dict[KeyId, TrustedKey]] = {subject: {} for subject in subjects}
    for action in sorted({subject.action for subject in subjects}):
        for entry in registry.entries(EntryFilter(action=action), newest=False):
            key_id = KeyId(str(entry.details.get(_KEY)))
            if entry.outcome != "success" or key_id not in allowed:
                continue
            for subject in (named for named in _name_subjects(entry) if named in found):
                _check_entry(registry, entry, subject, allowed[key_id])
                found[subject][key_id] = allowed[key_id]
    return found


def _name_subjects(entry: EntryRecord) -> list[Subject]:
    if entry.action == "patch.approve":
        return [Subject("patch", patch_id) for patch_id in entry.patches]
    return [Subject("plan", str(entry.details.get(_PLAN)))]


def _check_entry(registry: Registry, entry: EntryRecord, subject: Subject, key: TrustedKey) -> None:
    payload = subject.to_payload(registry.origin)
    try:
        data = registry.blobs.read(Digest(str(entry.details.get(_APPROVAL))), limit=_MAX_BYTES)
        found, signatures = read_joined(data, PAYLOAD_TYPE, _WHAT, limit=_MAX_BYTES)
        if found != payload or key.public.key_id not in signatures:
            raise SignatureError(f"{_WHAT}: expected one of {subject.kind} {subject.digest[:SHORT]} by that key")
        check_signature(key.public, payload, signatures[key.public.key_id], _WHAT, PAYLOAD_TYPE)
    except RasuraError as error:
        raise AuditError(
            f"audit log, entry {entry.index}: {error.message}",
            hint="keep this copy as evidence, then restore the registry from a backup",
            check="approval",
            index=entry.index,
        ) from None


def _check_role(registry: Registry, private: SigningKey, patch_ids: Sequence[PatchId]) -> None:
    policy = find_trust_policy(registry)
    if policy is None:
        raise NotFoundError(
            "there is no trust policy in force, so that nobody's approval counts", hint="rasura trust sign FILE"
        )
    key_id = private.public.key_id
    name, key = registry.key(key_id).name, policy.with_role(APPROVE).get(key_id)
    if key is None:
        raise InputError(
            f"key {name!r} has not the role approve in the trust policy: expected one that has",
            hint="rasura trust show",
        )
    for patch_id in patch_ids:
        record = registry.patch(patch_id)
        if not key.covers(record.concepts, record.base):
            raise InputError(
                f"key {name!r} does not approve patch {patch_id[:SHORT]} ({', '.join(record.concepts)}): expected one "
                "within its concepts and bases",
                hint="rasura trust show",
            )


def _approve(registry: Registry, subject: Subject, private: SigningKey, draft: Draft, *, dry_run: bool) -> Approved:
    key_id = private.public.key_id
    new = key_id not in find_approvals(registry, subject)
    if new and not dry_run:
        payload = subject.to_payload(registry.origin)
        data = encode_joined(payload, PAYLOAD_TYPE, {key_id: join_signature(payload, PAYLOAD_TYPE, private)})
        registry.blobs.put(data, sha256(data))
        details = {**draft.details, _KEY: key_id, _APPROVAL: sha256(data)}
        registry.note(replace(draft, action=subject.action, details=details))
    return Approved(subject, key_id, new)
