"""How patches come into the registry and out of it again: never without a signature that this registry trusts.

The bytes that were verified are the bytes that are read: a patch is taken from a store or a stranger once, as bytes,
and everything (signature, digests, manifest, tensors) is read from those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.patches.errors import RasuraError, RevokedKeyError, SignatureError, UntrustedKeyError
from rasura.patches.format.file_names import MANIFEST, SIGNATURE
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import RetainSpec
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.durable_files import translated
from rasura.registry._storage.records import BasisRecord, Draft, PatchRecord, RetainSetRecord
from rasura.registry.log.outcome import describe_outcome
from rasura.registry.registry import NewPatch, Registry
from rasura.registry.trust.retain_words import keep_retained

if TYPE_CHECKING:
    from rasura.patches.format.patch import Patch
    from rasura.patches.format.signing_key import PrivateKey, PublicKey
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
    """A patch whose signature, trust, digests and numbers were all found good, and the key that signed it."""

    patch: Patch
    key_id: KeyId


def list_trusted_keys(registry: Registry) -> tuple[PublicKey, ...]:
    """The keys whose signatures count here: trusted and not revoked."""
    from rasura.patches.format.signing_key import PublicKey

    return tuple(PublicKey.load(k.pem) for k in registry.keys() if k.trusted and k.revoked_at is None)


def open_bundle(registry: Registry, bundle: bytes) -> tuple[KeyId, Mapping[str, Digest]]:
    """The key of a `model.sig` and the files it names, if the signature is good and the key counts here.

    Raises:
        SignatureError: the signature does not verify, or the bundle breaks its format.
        RevokedKeyError: a good signature by a revoked key.
        UntrustedKeyError: a signature by a key that is not trusted here.
    """
    from rasura.patches.format.model_signature import read_statement
    from rasura.patches.format.signing_key import PublicKey

    known = {record.key_id: record for record in registry.keys()}
    try:
        statement = read_statement(bundle, [PublicKey.load(record.pem) for record in known.values()])
    except UntrustedKeyError as error:
        raise UntrustedKeyError(error.message, hint="rasura key trust FILE", **error.details) from None
    record = known[statement.key_id]
    if record.revoked_at is not None:
        raise RevokedKeyError(
            f"the patch is signed by key {record.name!r}, which was revoked on {record.revoked_at:%Y-%m-%d}",
            hint="rasura key list",
            key=record.key_id,
        )
    if not record.trusted:
        raise UntrustedKeyError(
            f"the patch is signed by key {record.name!r}, which this registry does not trust",
            hint="rasura key trust FILE",
            key=record.key_id,
        )
    return statement.key_id, statement.files


def verify_files(registry: Registry, files: Mapping[str, bytes]) -> Verified:
    """Verify a patch's bytes completely and read it.

    Raises:
        SignatureError: unsigned, or the signature does not verify.
        UntrustedKeyError, RevokedKeyError: the key does not count here.
        DigestMismatchError, FormatError, AlgebraError: the content is not what was signed, or breaks its format.
    """
    from rasura.patches.format.model_signature import verify
    from rasura.patches.format.patch import Patch

    if SIGNATURE not in files:
        raise SignatureError(
            f"the patch has no {SIGNATURE}: expected a signature by a trusted key", hint="rasura erase … --key NAME"
        )
    key_id, _ = open_bundle(registry, files[SIGNATURE])
    verify(files, list_trusted_keys(registry))
    return Verified(Patch.from_files(files), key_id)


def load_verified(registry: Registry, patch_id: PatchId) -> Patch:
    """A registered patch, verified anew from the bytes in the store.

    Raises:
        NotFoundError: no such patch.
        VerificationError: see `verify_files`.
    """
    return load_signed(registry, patch_id).patch


def load_signed(registry: Registry, patch_id: PatchId) -> Verified:
    """As `load_verified`, and the key that signed it."""
    verified = verify_files(registry, registry.patch_files(patch_id))
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

    Returns:
        The identity of each, and whether it is new here.

    Raises:
        VerificationError: see `verify_files`; nothing was registered.
        ExistsError, NotFoundError, RegistryError: see `Registry.add_patches`; nothing was registered.
    """
    new = [_new_patch(registry, patch) for patch in patches]
    for words in (patch.words for patch in patches):
        if words is not None:
            keep_retained(registry, words)
    added = registry.add_patches(new)
    return tuple((each.record.patch_id, is_new) for each, is_new in zip(new, added, strict=True))


def _new_patch(registry: Registry, patch: SignedPatch) -> NewPatch:
    verified = verify_files(registry, patch.files)
    manifest = verified.patch.manifest
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
        files={name: sha256(data) for name, data in patch.files.items()},
        size=sum(map(len, patch.files.values())),
        added_at=registry.now(),
        source=patch.source,
    )
    return NewPatch(
        record,
        patch.files,
        patch.draft,
        basis=BasisRecord(basis.sha256, basis.dimension, basis.rank, basis.rule),
        retain_set=_retain_record(retain) if retain else None,
    )


@dataclass(frozen=True, slots=True)
class Added:
    """A patch that came from a folder.

    Attributes:
        patch_id: its identity.
        new: whether it is new here.
        ignored: what lies beside it in the folder that no signature covers; it was not read.
    """

    patch_id: PatchId
    new: bool
    ignored: tuple[str, ...]


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
    from rasura.patches.format.patch import list_strangers, read_folder

    read: list[tuple[SignedPatch, PatchId, tuple[str, ...]]] = []
    obstacles = Obstacles()
    for folder in dict.fromkeys(folders):
        noted = replace(draft, details={"folder": str(folder)})
        try:
            patch = SignedPatch(read_folder(folder), f"folder {folder.name}", noted)
            with translated(f"read {folder}"):
                strangers = list_strangers(folder)
            read.append((patch, verify_files(registry, patch.files).patch.patch_id, strangers))
        except RasuraError as error:
            if len(folders) > 1:
                error.say_of(str(folder))
            obstacles.add(error)
            if not dry_run:
                registry.note(describe_outcome(noted, error))
    obstacles.refuse()
    if dry_run:
        known = {record.patch_id for record in registry.patches()}
        return tuple(Added(patch_id, patch_id not in known, ignored) for _, patch_id, ignored in read)
    try:
        added = add_signed(registry, [patch for patch, _, _ in read])
    except RasuraError as error:
        for patch, _, _ in read:
            registry.note(describe_outcome(patch.draft, error))
        raise
    return tuple(Added(*new, ignored) for new, (_, _, ignored) in zip(added, read, strict=True))


def _retain_record(retain: RetainSpec) -> RetainSetRecord:
    # Two sets may come from files of one name, so the name carries part of the digest.
    return RetainSetRecord(retain.sha256, f"{retain.source}@{retain.sha256[:12]}", retain.count)


def read_signed_files(patch: Patch, key: PrivateKey) -> dict[str, bytes]:
    """A patch's four files and their signature. The same patch and key give the same bytes (RFC 6979)."""
    from rasura.patches.format.model_signature import sign

    files = patch.files()
    return {**files, SIGNATURE: sign(files, name=patch.patch_id, key=key)}
