"""Patches for a colleague in one file: made of what is registered here, and taken in without believing any of it.

Whoever takes a bundle in sees which keys signed it. A key that this registry does not trust is trusted only when a
person names it, by digits of its id and not by the name that the sender gave it. Every patch is then verified as
`patch add` does it; all of them are registered in one transaction, or none.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import (
    DigestMismatchError,
    FormatError,
    InputError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
)
from rasura.patches.format.bundle_file import BUNDLE_LIMIT, BundleFiles, decode_bundle, encode_bundle
from rasura.patches.format.file_names import FURTHER, MANIFEST, SIGNATURE, is_signature, name_further
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.signatures.model_signature import check_files, read_statement
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.patches.types import SHORT, KeyId, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.stacks.bundles.bundle_contents import Bundle, BundledKey, BundledPatch, TakenIn
from rasura.registry.stacks.lock_file import LockFile
from rasura.registry.stacks.lock_stack import lock_stack
from rasura.registry.trust.keys.key_files import is_key_name, trust_key
from rasura.registry.trust.register_patch import SignedPatch, add_signed, find_signers
from rasura.registry.trust.roles.roles import Signed, check_erasers
from rasura.registry.trust.verified_patch import load_signed

__all__ = ["add_bundle", "make_bundle", "read_bundle"]

_LEAST: Final = 12
"""Fewest digits by which a key is trusted: so many are what people read to each other."""


def make_bundle(
    registry: Registry, ids: Sequence[PatchId], *, stack: str | None = None, evaluations: bool = True
) -> bytes:
    """The bundle of these patches: the same for the same registered content.

    Args:
        registry: where they are; every patch is verified anew.
        ids: the patches, each once.
        stack: a stack whose patches and lock go with them.
        evaluations: whether to send the reports of stacks that lie inside the bundle.

    Raises:
        InputError: no patches.
        VerificationError, NotFoundError: one is not good, or not here.
        CheckRefusedError: the composer does not accept the stack.
    """
    record = None if stack is None else registry.stack(stack)
    wanted = sorted({*ids, *(record.patches if record else ())})
    if not wanted:
        raise InputError("nothing to send: expected at least one patch", hint="rasura patch list")
    for patch_id in wanted:
        load_signed(registry, patch_id)
    signers = {key_id for patch_id in wanted for key_id in find_signers(registry, patch_id)}
    keys = {key.key_id: key for key in registry.keys() if key.key_id in signers}
    found = [e for e in registry.evaluations() if set(e.patches) <= set(wanted)] if evaluations else []
    return encode_bundle(
        BundleFiles(
            {patch_id: registry.patch_files(patch_id) for patch_id in wanted},
            {key_id: key.pem.encode() for key_id, key in keys.items()},
            {key_id: key.name for key_id, key in keys.items()},
            lock_stack(registry, record).to_bytes() if record else None,
            {e.digest: registry.blobs.read(e.digest) for e in found if e.patches},
        )
    )


def read_bundle(registry: Registry, path: Path) -> Bundle:
    """What a bundle holds, and how its keys stand here; nothing is changed.

    Raises:
        NotFoundError: no such file.
        FormatError, DigestMismatchError: see `decode_bundle`; a key or lock that is none.
        SignatureError: a patch without a signature, or whose signature does not verify.
    """
    files = decode_bundle(read_regular(path.resolve(), BUNDLE_LIMIT), str(path))
    sent = {key_id: _public(key_id, pem, path) for key_id, pem in files.keys.items()}
    if not files.patches:
        raise FormatError(f"{path}: expected at least one patch, got none")
    patches = tuple(_line(patch_id, found, sent, registry, path) for patch_id, found in sorted(files.patches.items()))
    lock = None if files.lock is None else _lock(files, path)
    return Bundle(files, patches, _keys(registry, files, patches), lock)


def add_bundle(
    registry: Registry, path: Path, draft: Draft, *, trust: Sequence[str] = (), dry_run: bool = False
) -> TakenIn:
    """Verify every patch of a bundle and register all of them, or none.

    Args:
        registry: where they go.
        path: the file.
        draft: the audit entry of each patch.
        trust: keys of the bundle that are to be trusted from now on, by at least twelve digits of their ids.
        dry_run: verify everything, and write nothing, no entry either.

    Raises:
        UntrustedKeyError, RevokedKeyError: a key does not count here; nothing was changed.
        VerificationError: see `rasura.registry.trust.verified_patch.verify_files`; nothing was changed.
        InputError: digits that name no key of the bundle, or too few.
    """
    draft = replace(draft, details={"bundle": path.name})
    with log_failure(registry, draft, dry_run=dry_run):
        bundle = read_bundle(registry, path)
        chosen = [_named(bundle, digits, path) for digits in trust]
        _check_keys(bundle, {key.key_id for key in chosen}, path)
        _check_patches(registry, bundle)
        if dry_run:
            here = {record.patch_id for record in registry.patches()}
            added = tuple((patch.patch_id, patch.patch_id not in here) for patch in bundle.patches)
            return TakenIn(bundle, added, tuple(key.key_id for key in chosen))
        for key in chosen:
            taken = {known.name for known in registry.keys()}
            given = key.name if is_key_name(key.name) and key.name not in taken else key.key_id[:SHORT]
            public = _public(key.key_id, bundle.files.keys[key.key_id], path)
            trust_key(registry, public, given, replace(draft, action="key.trust"))
        source = f"bundle {path.name}"
        before = {patch.patch_id: set(find_signers(registry, patch.patch_id)) for patch in bundle.patches}
        added = add_signed(registry, [SignedPatch(files, source, draft) for files in bundle.files.patches.values()])
    after = {patch_id: find_signers(registry, patch_id) for patch_id, new in added if not new}
    signed = {p: tuple(key for key in keys if key not in before[p]) for p, keys in after.items()}
    trusted = tuple(key.key_id for key in chosen)
    return TakenIn(bundle, added, trusted, {patch_id: keys for patch_id, keys in signed.items() if keys})


def _public(key_id: KeyId, pem: bytes, path: Path) -> PublicKey:
    try:
        found = PublicKey.load(pem)
    except FormatError as error:
        raise FormatError(f"{path}: key {key_id[:SHORT]}: {error.message}") from None
    if found.key_id != key_id:
        raise DigestMismatchError(f"{path}: expected key {key_id[:SHORT]} under its own id, got {found.key_id[:SHORT]}")
    return found


def _line(
    patch_id: PatchId, files: Mapping[str, bytes], sent: Mapping[KeyId, PublicKey], registry: Registry, path: Path
) -> BundledPatch:
    """A patch's line, its signatures verified against whichever keys made them; others are left alone."""
    if SIGNATURE not in files or MANIFEST not in files:
        raise SignatureError(f"{path}: patch {patch_id[:SHORT]} lacks its {SIGNATURE} or {MANIFEST}: expected both")
    known = {**sent, **{key.key_id: PublicKey.load(key.pem) for key in registry.keys()}}
    content = {name: data for name, data in files.items() if not is_signature(name)}
    statement = read_statement(files[SIGNATURE], known.values())
    check_files(statement, content)
    further = [key for key in known.values() if name_further(key.key_id) in files and key.key_id != statement.key_id]
    for key in further:
        check_files(read_statement(files[name_further(key.key_id)], [key]), content)
    if str(digest_of(files[MANIFEST])) != patch_id:
        raise DigestMismatchError(f"{path}: expected patch {patch_id[:SHORT]} under its own id, got another")
    manifest = Manifest.from_bytes(files[MANIFEST])
    others = tuple(sorted(key.key_id for key in further))
    return BundledPatch(patch_id, manifest.concept.text, manifest.eraser.name, statement.key_id, others)


def _lock(files: BundleFiles, path: Path) -> LockFile:
    lock = LockFile.from_bytes(files.lock or b"")
    for locked in lock.patches:
        found = files.patches.get(locked.patch_id)
        own = {n: digest_of(d) for n, d in (found or {}).items() if not FURTHER.fullmatch(n)}
        if found is None or own != dict(locked.files):
            raise DigestMismatchError(
                f"{path}: its lock of stack {lock.stack!r} names patch {locked.patch_id[:SHORT]}: expected that in the "
                "bundle, with the same files, got another or none"
            )
    return lock


def _keys(registry: Registry, files: BundleFiles, patches: Sequence[BundledPatch]) -> tuple[BundledKey, ...]:
    here = {key.key_id: key for key in registry.keys()}

    def standing(key_id: KeyId) -> str:
        if (record := here.get(key_id)) is None:
            return "unknown"
        return "revoked" if record.revoked_at is not None else "trusted" if record.trusted else "not trusted"

    ids = sorted({*files.keys, *(key_id for patch in patches for key_id in patch.signers)})
    return tuple(
        BundledKey(
            key_id,
            files.key_names.get(key_id) or (here[key_id].name if key_id in here else ""),
            standing(key_id),
            key_id in files.keys,
        )
        for key_id in ids
    )


def _named(bundle: Bundle, digits: str, path: Path) -> BundledKey:
    found = [key for key in bundle.keys if key.sent and key.key_id.startswith(digits)]
    if len(digits) < _LEAST or len(found) != 1:
        raise InputError(
            f"expected {_LEAST} digits or more of the id of one key in the bundle, got {digits[:64]!r}; it holds "
            f"{', '.join(key.key_id for key in bundle.keys if key.sent) or 'none'}",
            hint=f"rasura bundle show {shlex.quote(str(path))}",
        )
    return found[0]


def _check_keys(bundle: Bundle, chosen: set[KeyId], path: Path) -> None:
    good = {key.key_id for key in bundle.keys if key.standing == "trusted"} | chosen
    left = [patch for patch in bundle.patches if not good.intersection(patch.signers)]
    signers = {key_id for patch in left for key_id in patch.signers}
    for key in bundle.keys:
        if key.standing == "revoked" and key.key_id in signers | chosen:
            raise RevokedKeyError(
                f"{path}: signed by key {key.name!r} ({key.key_id[:SHORT]}), which was revoked here",
                hint="rasura key list",
                key=key.key_id,
            )
    unknown = [key for key in bundle.keys if key.key_id in signers]
    if unknown:
        named = ", ".join(f"{key.key_id} (the bundle calls it {key.name!r})" for key in unknown)
        digits = " ".join(f"--trust {key.key_id[:_LEAST]}" for key in unknown)
        raise UntrustedKeyError(
            f"{path}: signed by keys that this registry does not trust: {named}; compare the id with its owner's, who "
            "sees it in rasura key list",
            hint=f"rasura bundle add {shlex.quote(str(path))} {digits}",
            keys=[key.key_id for key in unknown],
        )


def _check_patches(registry: Registry, bundle: Bundle) -> None:
    """Read every patch whole before a key is trusted for its sake, and see whether who signed it may bring it."""
    from rasura.patches.format.patch import Patch

    told = []
    for line in bundle.patches:
        manifest = Patch.from_files(bundle.files.patches[line.patch_id]).manifest
        keys = frozenset({*line.signers, *find_signers(registry, line.patch_id)})
        told.append(Signed(line.patch_id, (manifest.concept.text,), manifest.base.sha256, keys))
    check_erasers(registry, told)
