"""A trusted person signs a registered patch, too: kept beside the signatures that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rasura.patches.errors import RasuraError
from rasura.patches.obstacles import Obstacles
from rasura.patches.types import SHORT, KeyId, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft, SignatureRecord
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import NewSignature, Registry
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.register_patch import find_signers
from rasura.registry.trust.verified_patch import load_signed, make_signature

__all__ = ["SignedAgain", "sign_patches"]


@dataclass(frozen=True, slots=True)
class SignedAgain:
    """A patch, the key that signed it, and whether that key had not signed it before."""

    patch_id: PatchId
    key_id: KeyId
    new: bool


def sign_patches(
    registry: Registry, patch_ids: Sequence[PatchId], key: str | None, draft: Draft, *, dry_run: bool = False
) -> tuple[SignedAgain, ...]:
    """Sign registered patches with another key: all of them, or none.

    The bytes are verified first against a signature by any key that is known here. That may be one that was revoked
    since: then who signs vouches for what it once signed, and what is in force need not be made anew.

    Args:
        registry: where they are.
        patch_ids: which.
        key: name of the key to sign with; None takes the only one.
        draft: the entry of each; patch, base and key are filled in.
        dry_run: verify them only; nothing is written, no entry either.

    Raises:
        NotFoundError, InputError, RevokedKeyError: there is no such key to sign with.
        VerificationError: a patch is not what a key that is known here signed.
        RasuraError: the first of several of these, with the others in `others`; nothing was signed.
    """
    ids, obstacles = tuple(dict.fromkeys(patch_ids)), Obstacles()
    with log_failure(registry, replace(draft, patches=ids), dry_run=dry_run):
        private = signer(registry, key)
        new: list[NewSignature] = []
        for patch_id in ids:
            try:
                patch = load_signed(registry, patch_id, in_force=True).patch
            except RasuraError as error:
                error.say_of(f"patch {patch_id[:SHORT]}")
                obstacles.add(error)
                continue
            bundle = make_signature(patch, private)
            record = SignatureRecord(sha256(bundle), patch_id, private.public.key_id, registry.now())
            details = {**draft.details, "key": record.key_id}
            base = patch.manifest.base.sha256
            new.append(NewSignature(record, bundle, replace(draft, base=base, patches=(patch_id,), details=details)))
        obstacles.refuse()
        fresh = tuple(private.public.key_id not in find_signers(registry, patch_id) for patch_id in ids)
        if not dry_run:
            fresh = registry.add_signatures(new)
    return tuple(SignedAgain(p, private.public.key_id, is_new) for p, is_new in zip(ids, fresh, strict=True))
