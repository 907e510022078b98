"""Patches are believed by their signatures: read from the registry, or from a stranger's bytes, never without one.

The bytes that were verified are the bytes that are read: a patch is taken from a store or a stranger once, as bytes,
and everything (signature, digests, manifest, tensors) is read from those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rasura.patches.errors import (
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
    VerificationError,
)
from rasura.patches.format.file_names import MANIFEST, SIGNATURE, is_signature, name_further
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.signatures.model_signature import check_files, read_statement, sign
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.patches.types import SHORT, Digest, KeyId, PatchId
from rasura.registry._storage.records.records import KeyRecord
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.revocation import find_reason
from rasura.registry.trust.roles.roles import name_resigner

if TYPE_CHECKING:
    from rasura.patches.format.patch import Patch  # needs numpy; reading manifests does not
    from rasura.patches.format.signatures.intoto_statement import Statement
    from rasura.patches.format.signatures.signing_key import SigningKey


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """A patch whose signature, trust, digests and numbers were all found good, and the key that signed it.

    Attributes:
        patch: the patch.
        key_id: whose signature it is.
        counts: whether that key counts here; only what is in force already is given with one that counts no more.
        signatures: the signatures by keys that count, `key_id`'s first.
    """

    patch: Patch
    key_id: KeyId
    counts: bool = True
    signatures: Mapping[KeyId, bytes] = field(default_factory=dict)


def list_trusted_keys(registry: Registry) -> tuple[PublicKey, ...]:
    """The keys whose signatures count here: trusted and not revoked."""
    return tuple(PublicKey.load(k.pem) for k in registry.keys() if k.trusted and k.revoked_at is None)


def open_bundle(registry: Registry, bundle: bytes) -> tuple[KeyId, Mapping[str, Digest]]:
    """The key of a `model.sig` and the files it names, if the signature is good and the key counts here.

    Raises:
        SignatureError: the signature does not verify, or the bundle breaks its format.
        RevokedKeyError: a good signature by a revoked key.
        UntrustedKeyError: a signature by a key that is not trusted here.
    """
    statement, record = _read_bundle(registry.keys(), bundle)
    check_counts(registry, record)
    return statement.key_id, statement.files


def _read_bundle(keys: Iterable[KeyRecord], bundle: bytes) -> tuple[Statement, KeyRecord]:
    """What one of these keys signed, whether or not it counts."""
    known = {record.key_id: record for record in keys}
    try:
        statement = read_statement(bundle, [PublicKey.load(record.pem) for record in known.values()])
    except UntrustedKeyError as error:
        raise UntrustedKeyError(error.message, hint="rasura key trust FILE", **error.details) from None
    return statement, known[statement.key_id]


def check_counts(registry: Registry, key: KeyRecord) -> None:
    """Refuse a key whose signatures do not count here.

    Raises:
        RevokedKeyError: it was revoked; when and why is said.
        UntrustedKeyError: it is not trusted.
    """
    if key.revoked_at is not None:
        why = find_reason(registry, key.key_id)
        raise RevokedKeyError(
            f"the patch is signed by key {key.name!r}, which was revoked on {key.revoked_at:%Y-%m-%d}"
            + (f": {why}" if why else ""),
            hint="rasura key list",
            key=key.key_id,
        )
    if not key.trusted:
        raise UntrustedKeyError(
            f"the patch is signed by key {key.name!r}, which this registry does not trust",
            hint="rasura key trust FILE",
            key=key.key_id,
        )


def verify_files(registry: Registry, files: Mapping[str, bytes], *, in_force: bool = False) -> Verified:
    """Verify a patch's bytes completely and read it.

    A patch may have several signatures (`model.sig`, and `KEY.sig` by other keys). It passes if one of them is by a key
    that counts here. Those by keys that nobody here knows are left alone; all others must be good.

    Args:
        registry: whose keys count.
        files: content and signatures.
        in_force: the patch is applied already, and stays as it is: then a key that is known here proves the bytes, even
            one that was revoked since. The log wrote down which patch that is while the key counted, and a patch's
            identity covers its bytes: nobody who has the key now can make them others.

    Raises:
        SignatureError: unsigned, or a signature does not verify.
        UntrustedKeyError, RevokedKeyError: no key that signed counts here; the first is named.
        DigestMismatchError, FormatError, AlgebraError: the content is not what was signed, or breaks its format.
    """
    from rasura.patches.format.patch import Patch  # needs numpy; reading manifests does not

    names = sorted(filter(is_signature, files), key=lambda name: (name != SIGNATURE, name))
    if not names:
        raise SignatureError(
            f"the patch has no {SIGNATURE}: expected a signature by a trusted key", hint="rasura erase … --key NAME"
        )
    content = {name: data for name, data in files.items() if not is_signature(name)}
    good, once, refusals = _read_signatures(registry, {name: files[name] for name in names}, content)
    if good:
        return Verified(Patch.from_files(content), next(iter(good)), signatures=good)
    if once and in_force:
        return Verified(Patch.from_files(content), once[0], counts=False)
    raise refusals[0]


def _read_signatures(
    registry: Registry, bundles: Mapping[str, bytes], content: Mapping[str, bytes]
) -> tuple[dict[KeyId, bytes], list[KeyId], list[VerificationError]]:
    """The good signatures by keys that count, other keys with a good one, and why those do not count."""
    keys = registry.keys()
    known = {name_further(record.key_id) for record in keys}
    good: dict[KeyId, bytes] = {}
    once: list[KeyId] = []
    refusals: list[VerificationError] = []
    for name, bundle in bundles.items():
        if name != SIGNATURE and name not in known:  # whatever that is: nobody here could verify it
            what = f"{name}: expected a signature by a known key, got one by another"
            refusals.append(UntrustedKeyError(what, hint="rasura key trust FILE"))
            continue
        try:
            statement, key = _read_bundle(keys, bundle)
        except UntrustedKeyError as error:
            refusals.append(error)
            continue
        if name not in {SIGNATURE, name_further(key.key_id)}:
            raise SignatureError(f"{name}: expected a signature by the key of that name, got one by {key.name!r}")
        check_files(statement, content)
        try:
            check_counts(registry, key)
        except (RevokedKeyError, UntrustedKeyError) as error:
            once.append(key.key_id)
            refusals.append(error)
        else:
            good.setdefault(key.key_id, bundle)
    return good, once, refusals


def load_verified(registry: Registry, patch_id: PatchId) -> Patch:
    """A registered patch, verified anew from the bytes in the store.

    Raises:
        NotFoundError: no such patch.
        VerificationError: see `verify_files`.
    """
    return load_signed(registry, patch_id).patch


def load_signed(registry: Registry, patch_id: PatchId, *, in_force: bool = False) -> Verified:
    """As `load_verified`, and the key that signed it; `in_force` as for `verify_files`."""
    try:
        verified = verify_files(registry, registry.patch_files(patch_id), in_force=in_force)
    except RevokedKeyError as error:
        name = name_resigner(registry, registry.patch(patch_id)) or "NAME"
        error.hint = f"rasura patch sign {patch_id[:SHORT]} --key {name}"
        raise
    if verified.patch.patch_id != patch_id:
        raise SignatureError(f"the store holds patch {verified.patch.patch_id} where {patch_id} was expected")
    return verified


def manifest_of(registry: Registry, patch_id: PatchId) -> Manifest:
    """The manifest of a registered patch, checked against the patch's identity; needs no torch."""
    data = registry.blobs.read(registry.patch(patch_id).files[MANIFEST])
    manifest = Manifest.from_bytes(data)
    if manifest.patch_id != patch_id:
        raise SignatureError(f"the store holds the manifest of {manifest.patch_id} where {patch_id} was expected")
    return manifest


def read_signed_files(patch: Patch, key: SigningKey) -> dict[str, bytes]:
    """A patch's four files and their signature. The same patch and key give the same bytes (RFC 6979)."""
    return {**patch.files(), SIGNATURE: make_signature(patch, key)}


def make_signature(patch: Patch, key: SigningKey) -> bytes:
    """The bundle of this key over a patch's four files."""
    return sign(patch.files(), name=patch.patch_id, key=key)
