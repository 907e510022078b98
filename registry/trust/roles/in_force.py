"""The trust policy in force: signed in files, put in force by an entry of the log, which remembers each version.

No table says which one it is. Every reader follows the entries `trust.set` from the first and checks each step
(`rasura.registry.trust.roles.signed_trust.check_next`), so that neither a row nor a program that lied once can put
in force what its predecessors' keys did not sign, and an old version cannot come back.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import AuditError, InputError, NotFoundError, SignatureError
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.patches.types import Digest
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.log.entries.signers import name_signers
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.roles.signed_trust import SignedTrust, check_next
from rasura.registry.trust.roles.trust_policy import MAX_TRUST_BYTES, POLICY, TrustPolicy

__all__ = ["find_trust_policy", "put_trust_in_force", "sign_trust_policy"]

SET: Final = "trust.set"
_DIGEST: Final = "trust"
_VERSION: Final = "version"


def find_trust_policy(registry: Registry) -> TrustPolicy | None:
    """The trust policy in force, every version up to it checked; None where there never was one.

    Raises:
        AuditError: the log names a version that its predecessor's keys did not sign.
        NotFoundError, DigestMismatchError: the file of a version is missing or was changed.
    """
    found = _signed(registry)
    return None if found is None else found.policy


def sign_trust_policy(registry: Registry, path: Path, key: str | None) -> SignedTrust:
    """Sign a policy: one in TOML becomes the next version, one that others signed already gets one more signature.

    Args:
        registry: whose log it is about, and where its keys and bases have names.
        path: the file.
        key: name of the key to sign with; None takes the only one.

    Raises:
        NotFoundError: no such file, key or base.
        InputError, FormatError: no policy, or the key has not the role `policy` in it, nor in the one in force.
        SignatureError: about another log, or not the next version.
    """
    try:
        data = read_regular(path, MAX_TRUST_BYTES)
    except NotFoundError:
        raise NotFoundError(f"trust policy {path} does not exist", hint="rasura trust show") from None
    current = find_trust_policy(registry)
    version = 1 if current is None else current.version + 1
    if data.lstrip().startswith(b"{"):
        document = SignedTrust.parse(data)
        if (document.policy.origin, document.policy.version) != (registry.origin, version):
            raise SignatureError(
                f"trust policy: expected version {version} of {registry.origin}, got {document.policy.version} of "
                f"{document.policy.origin}",
                hint="rasura trust show",
            )
    else:
        made = TrustPolicy.from_toml(
            data,
            origin=registry.origin,
            version=version,
            find_key=lambda name: PublicKey.load(registry.key(name).pem),
            find_base=lambda name: registry.base(name).digest,
        )
        document = SignedTrust.unsigned(made)
    private = signer(registry, key)
    allowed = [policy for policy in (document.policy, current) if policy is not None]
    if not any(private.public.key_id in policy.with_role(POLICY) for policy in allowed):
        raise InputError(
            f"key {registry.key(private.public.key_id).name!r} has not the role policy: expected one that has",
            hint="rasura trust show",
        )
    return document.signed_by(private)


def put_trust_in_force(registry: Registry, path: Path, draft: Draft, *, dry_run: bool = False) -> SignedTrust:
    """Make a signed policy the one in force.

    Args:
        registry: where.
        path: the file, as `sign_trust_policy` makes it.
        draft: the entry; digest, version and signers are filled in.
        dry_run: only check it; nothing is written, no entry either.

    Raises:
        NotFoundError: no such file.
        FormatError: no signed policy.
        SignatureError: it does not follow the one in force; logged as refused.
        InputError: it has expired, or a key that was revoked here has signed it; logged as refused.
    """
    with log_failure(registry, draft, dry_run=dry_run):
        try:
            document = SignedTrust.parse(read_regular(path, MAX_TRUST_BYTES))
        except NotFoundError:
            raise NotFoundError(f"trust policy {path} does not exist", hint="rasura trust sign FILE") from None
        check_next(find_trust_policy(registry), document, registry.origin)
        _check_now(registry, document)
        if not dry_run:
            registry.blobs.put(document.to_bytes(), document.digest)
            keys = {key.public.key_id for key in document.policy.keys} & document.signatures.keys()
            details: dict[str, str | int] = {**draft.details, _DIGEST: document.digest, "signers": name_signers(keys)}
            registry.note(replace(draft, details={**details, _VERSION: document.policy.version}))
    return document


def _check_now(registry: Registry, document: SignedTrust) -> None:
    if document.policy.expires <= registry.now():
        raise InputError(
            f"the trust policy expired on {document.policy.expires:%Y-%m-%d}: expected a later day",
            hint="rasura trust sign FILE --key NAME",
        )
    revoked = [key for key in registry.keys() if key.revoked_at is not None and key.key_id in document.signatures]
    if revoked:
        raise InputError(
            f"the trust policy is signed by key {revoked[0].name!r}, which was revoked: expected signatures of others",
            hint="rasura key list",
        )


def _signed(registry: Registry) -> SignedTrust | None:
    """Follow the versions from the first. Of two that were put in force at the same time, the first one counts."""
    found: SignedTrust | None = None
    for entry in registry.entries(EntryFilter(action=SET), newest=False):
        if entry.outcome != "success":
            continue
        digest, version = entry.details.get(_DIGEST), entry.details.get(_VERSION)
        if version != (1 if found is None else found.policy.version + 1):
            continue
        document = SignedTrust.parse(registry.blobs.read(Digest(str(digest)), limit=MAX_TRUST_BYTES))
        try:
            check_next(None if found is None else found.policy, document, registry.origin)
        except SignatureError as error:
            raise AuditError(
                f"audit log, entry {entry.index}: {error.message}",
                hint="keep this copy as evidence, then restore the registry from a backup",
                check="trust",
                index=entry.index,
            ) from None
        found = document
    return found
