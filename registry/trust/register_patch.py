"""How signed patches come into the registry: verified first, then all of them in one transaction, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rasura.patches.errors import (
    NotFoundError,
    RasuraError,
)
from rasura.patches.format.file_names import SIGNATURE, is_signature
from rasura.patches.format.protected_spec import RetainSpec
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import KeyId, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.files.durable_files import translated
from rasura.registry._storage.records.base_records import BasisRecord, RetainSetRecord
from rasura.registry._storage.records.records import Draft, PatchRecord
from rasura.registry.log.entries.outcome import describe_outcome
from rasura.registry.registry import NewPatch, Registry
from rasura.registry.trust.retain_words import keep_retained
from rasura.registry.trust.roles.roles import Signed, check_erasers
from rasura.registry.trust.verified_patch import Verified, verify_files


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
class AddedPatch:
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
) -> tuple[AddedPatch, ...]:
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
    read: list[tuple[SignedPatch, AddedPatch]] = []
    known = {record.patch_id for record in registry.patches()}
    obstacles = Obstacles()
    for folder in dict.fromkeys(folders):
        noted = replace(draft, details={"folder": str(folder)})
        try:
            patch, verified, ignored = _read_one(registry, folder, noted)
            patch_id, signers = verified.patch.patch_id, find_new_signers(registry, verified)
            read.append((patch, AddedPatch(patch_id, patch_id not in known, ignored, signers)))
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


def _read_one(registry: Registry, folder: Path, draft: Draft) -> tuple[SignedPatch, Verified, tuple[str, ...]]:
    """The patch in a folder, which may come in; and what lies there that is not taken."""
    from rasura.patches.format.patch import list_strangers, read_folder  # needs numpy, as above

    patch = SignedPatch(read_folder(folder), f"folder {folder.name}", draft)
    with translated(f"read {folder}"):
        strangers = list_strangers(folder)
    verified = verify_files(registry, patch.files)
    check_may_come_in(registry, verified)
    return patch, verified, (*strangers, *list_left(verified, patch.files))


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
