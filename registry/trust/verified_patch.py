"""How patches come into the registry and out of it again: never without a signature that this registry trusts.

The bytes that were verified are the bytes that are read: a patch is taken from a store or a stranger once, as bytes,
and everything (signature, digests, manifest, tensors) is read from those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.patches.errors import (
    NotFoundError,
    RasuraError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
    VerificationError,
)
from rasura.patches.format.file_names import MANIFEST, SIGNATURE, is_signature, name_further
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import RetainSpec
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import SHORT, Digest, KeyId, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.files.durable_files import translated
from rasura.registry._storage.records.records import BasisRecord, Draft, KeyRecord, PatchRecord, RetainSetRecord
from rasura.registry.log.entries.outcome import describe_outcome
from rasura.registry.registry import NewPatch, Registry
from rasura.registry.trust.keys.revocation import find_reason
from rasura.registry.trust.retain_words import keep_retained
from rasura.registry.trust.roles.roles import Signed, check_erasers, name_resigner

if TYPE_CHECKING:
    from rasura.patches.format.patch import Patch  # needs torch; reading manifests does not
    from rasura.patches.format.signatures.intoto_statement import Statement
    from rasura.patches.format.signatures.signing_key import PublicKey, SigningKey
# Spelled here too because rasura.patches.format.patch needs torch to read what these hold, and a list does not.


@dataclass(frozen=True, slots=True, eq=False)
class SignedPatch:
    """A patch's bytes before anybody verified them, and what the log shall say once they are registered.

    Attributes:
        files: content and signature.
        source: where it came from, for people.
        draft: the audit entry; patch and base are filled in.
        words: the retain set, where the patch is made here: kept, so that it can be solved anew.
    """

    files: Mapping[str, bytes]
    source: str
    draft: Draft
    words: RetainSet | None = None


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
    from rasura.patches.format.signatures.signing_key import PublicKey  # needs cryptography; reading manifests does not

    return tuple(PublicKey.load(k.pem) for k in registry.keys() if k.trusted and k.revoked_at is None)


def open_bundle(registry: Registry, bundle: bytes) -> tuple[KeyId, Mapping[str, Digest]]:
    """The key of a `model.sig` and the files it names, if the signature is good and the key counts here.

    Raises:
        SignatureError: the signature does not verify, or the bundle breaks its format.
        RevokedKeyError: a good signature by a revoked key.
        UntrustedKeyError: a signature by a key that is not trusted here.
    """
    statement, record = _read_bundle(registry, bundle)
    check_counts(registry, record)
    return statement.key_id, statement.files


def _read_bundle(registry: Registry, bundle: bytes) -> tuple[Statement, KeyRecord]:
    """What a known key signed, whether or not it counts."""
    from rasura.patches.format.signatures.model_signature import read_statement  # needs cryptography, as above
    from rasura.patches.format.signatures.signing_key import PublicKey  # needs cryptography; reading manifests does not

    known = {record.key_id: record for record in registry.keys()}
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
    from rasura.patches.format.patch import Patch  # needs torch; reading manifests does not

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
    from rasura.patches.format.signatures.model_signature import check_files  # needs cryptography, as above

    known = {name_further(record.key_id) for record in registry.keys()}
    good: dict[KeyId, bytes] = {}
    once: list[KeyId] = []
    refusals: list[VerificationError] = []
    for name, bundle in bundles.items():
        if name != SIGNATURE and name not in known:  # whatever that is: nobody here could verify it
            what = f"{name}: expected a signature by a known key, got one by another"
            refusals.append(UntrustedKeyError(what, hint="rasura key trust FILE"))
            continue
        try:
            statement, key = _read_bundle(registry, bundle)
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


def add_signed(registry: Registry, patches: Sequence[SignedPatch]) -> tuple[tuple[PatchId, bool], ...]:
    """Verify the bytes of all patches, then register all in one transaction: all of them, or none.

    Signatures by keys that count are kept, of a patch that is here already, too; the first of them is its `model.sig`.

    Returns:
        The identity of each, and whether it is new here.

    Raises:
        VerificationError: see `verify_files`; nothing was registered.
        UntrustedKeyError, NotApprovedError: the trust policy asks for a signature of another; nothing was registered.
        ExistsError, NotFoundError, RegistryError: see `Registry.add_patches`; nothing was registered.
    """
    new = [_new_patch(registry, patch) for patch in patches]
    check_erasers(registry, [_signed(registry, each) for each in new])
    for words in (patch.words for patch in patches):
        if words is not None:
            keep_retained(registry, words)
    added = registry.add_patches(new)
    return tuple((each.record.patch_id, is_new) for each, is_new in zip(new, added, strict=True))


def _new_patch(registry: Registry, patch: SignedPatch) -> NewPatch:
    verified = verify_files(registry, patch.files)
    manifest = verified.patch.manifest
    files = {name: data for name, data in patch.files.items() if not is_signature(name)}
    files[SIGNATURE] = verified.signatures[verified.key_id]
    basis, retain = manifest.protected.basis, manifest.protected.retain
    record = PatchRecord(
        patch_id=verified.patch.patch_id,
        concepts=(manifest.concept.text,),
        anchor=manifest.concept.anchor,
        method=manifest.eraser.name,
        base=manifest.base.sha256,
        basis=basis.sha256,
        retain_set=retain.sha256 if retain else None,
        key_id=verified.key_id,
        files={name: sha256(data) for name, data in files.items()},
        size=sum(map(len, files.values())),
        added_at=registry.now(),
        source=patch.source,
    )
    return NewPatch(
        record,
        files,
        patch.draft,
        further={key_id: bundle for key_id, bundle in verified.signatures.items() if key_id != verified.key_id},
        basis=BasisRecord(basis.sha256, basis.dimension, basis.rank, basis.rule),
        retain_set=_retain_record(retain) if retain else None,
    )


def _signed(registry: Registry, new: NewPatch) -> Signed:
    record = new.record
    own = {record.key_id} if record.key_id else set()
    keys = frozenset({*own, *new.further, *find_signers(registry, record.patch_id)})
    return Signed(record.patch_id, record.concepts, record.base, keys)


def check_may_come_in(registry: Registry, verified: Verified) -> None:
    """Refuse a patch that the trust policy lets nobody bring who signed it; one that is here may have other signatures.

    Raises:
        UntrustedKeyError, NotApprovedError: see `rasura.registry.trust.roles.roles.check_erasers`.
    """
    patch = verified.patch
    keys = frozenset({*verified.signatures, *find_signers(registry, patch.patch_id)})
    told = Signed(patch.patch_id, (patch.manifest.concept.text,), patch.manifest.base.sha256, keys)
    check_erasers(registry, [told])


def find_new(registry: Registry, patch_ids: Sequence[PatchId]) -> tuple[bool, ...]:
    """Which of these patches the registry does not hold yet; nothing is written."""
    known = {record.patch_id for record in registry.patches()}
    return tuple(patch_id not in known for patch_id in patch_ids)


@dataclass(frozen=True, slots=True)
class Added:
    """A patch that came from a folder.

    Attributes:
        patch_id: its identity.
        new: whether it is new here.
        ignored: what lies beside it in the folder that no signature covers, which was not read; and signatures by keys
            that do not count here, which were not kept.
        signers: keys whose signatures over it are new here.
    """

    patch_id: PatchId
    new: bool
    ignored: tuple[str, ...]
    signers: tuple[KeyId, ...] = ()


def add_folders(
    registry: Registry, folders: Sequence[Path], draft: Draft, *, dry_run: bool = False
) -> tuple[Added, ...]:
    """Verify the patches in folders, as `rasura patch export` writes them, and register all of them, or none.

    Args:
        registry: where they go.
        folders: a patch each.
        draft: the audit entry of each; its folder is filled in.
        dry_run: verify them only; nothing is written, no entry either.

    Returns:
        Each as it was taken in.

    Raises:
        NotFoundError: no such folder, or no patch in it.
        VerificationError: see `verify_files`.
        RasuraError: the first that is not good, with the others in `others`; nothing was registered.
    """
    from rasura.patches.format.patch import list_strangers, read_folder  # needs torch, as above

    read: list[tuple[SignedPatch, Added]] = []
    known = {record.patch_id for record in registry.patches()}
    obstacles = Obstacles()
    for folder in dict.fromkeys(folders):
        noted = replace(draft, details={"folder": str(folder)})
        try:
            patch = SignedPatch(read_folder(folder), f"folder {folder.name}", noted)
            with translated(f"read {folder}"):
                strangers = list_strangers(folder)
            verified = verify_files(registry, patch.files)
            check_may_come_in(registry, verified)
            patch_id, ignored = verified.patch.patch_id, (*strangers, *list_left(verified, patch.files))
            signers = find_new_signers(registry, verified)
            read.append((patch, Added(patch_id, patch_id not in known, ignored, signers)))
        except RasuraError as error:
            if len(folders) > 1:
                error.say_of(str(folder))
            obstacles.add(error)
            if not dry_run:
                registry.note(describe_outcome(noted, error))
    obstacles.refuse()
    if dry_run:
        return tuple(added for _, added in read)
    try:
        done = add_signed(registry, [patch for patch, _ in read])
    except RasuraError as error:
        for patch, _ in read:
            registry.note(describe_outcome(patch.draft, error))
        raise
    return tuple(replace(added, new=new) for (_, new), (_, added) in zip(done, read, strict=True))


def list_left(verified: Verified, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The signatures among a patch's files that are not kept: those by keys that do not count here."""
    kept = set(verified.signatures.values())
    return tuple(sorted(name for name, data in files.items() if is_signature(name) and data not in kept))


def find_new_signers(registry: Registry, verified: Verified) -> tuple[KeyId, ...]:
    """The keys that count and whose signatures over this patch are not here yet."""
    here = find_signers(registry, verified.patch.patch_id)
    return tuple(key_id for key_id in verified.signatures if key_id not in here)


def find_signers(registry: Registry, patch_id: PatchId) -> tuple[KeyId, ...]:
    """The keys whose signatures over a patch are kept here, the first signer first; () of one that is not here."""
    try:
        first = registry.patch(patch_id).key_id
    except NotFoundError:
        return ()
    return (*([first] if first else []), *(signature.key_id for signature in registry.signatures(patch_id)))


def _retain_record(retain: RetainSpec) -> RetainSetRecord:
    # Two sets may come from files of one name, so the name carries part of the digest.
    return RetainSetRecord(retain.sha256, f"{retain.source}@{retain.sha256[:12]}", retain.count)


def read_signed_files(patch: Patch, key: SigningKey) -> dict[str, bytes]:
    """A patch's four files and their signature. The same patch and key give the same bytes (RFC 6979)."""
    return {**patch.files(), SIGNATURE: make_signature(patch, key)}


def make_signature(patch: Patch, key: SigningKey) -> bytes:
    """The bundle of this key over a patch's four files."""
    from rasura.patches.format.signatures.model_signature import sign  # needs cryptography, as above

    return sign(patch.files(), name=patch.patch_id, key=key)
