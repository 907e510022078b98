"""Patches between a registry and the Hub. What comes in counts only if a key that this registry trusts signed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rasura.patches.errors import VerificationError
from rasura.patches.format.file_names import MANIFEST, SIGNATURE
from rasura.patches.format.signatures.model_signature import read_claim
from rasura.patches.types import KeyId, PatchId
from rasura.registry import hub
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft
from rasura.registry.hub.card.describe import Describer, encode_beside
from rasura.registry.hub.card.facts import CardFacts, PatchFacts
from rasura.registry.hub.card.licences import parse_licence
from rasura.registry.hub.remote import Remote
from rasura.registry.log.entries.outcome import describe_outcome, log_failure
from rasura.registry.registry import Registry
from rasura.registry.trust.register_patch import (
    SignedPatch,
    add_signed,
    check_may_come_in,
    find_new,
    find_new_signers,
    list_left,
)
from rasura.registry.trust.verified_patch import Verified, open_bundle, verify_files


@dataclass(frozen=True, slots=True)
class Pulled:
    """A patch that came from the Hub.

    Attributes:
        patch_id: its identity.
        new: whether the registry did not hold it before.
        ignored: files beside it that no signature covers, which were not read; and signatures by keys that do not count
            here, which were not kept.
        signers: keys whose signatures over it are new here.
    """

    patch_id: PatchId
    new: bool
    ignored: tuple[str, ...]
    signers: tuple[KeyId, ...] = ()


@dataclass(frozen=True, slots=True)
class Pull:
    """What a pull did.

    Attributes:
        repo: the repository at the commit that was read.
        patches: those that are registered now.
        refused: those that were left out, and why.
    """

    repo: hub.PinnedRepo
    patches: list[Pulled]
    refused: list[hub.RefusedPatch]


def push_patches(
    registry: Registry,
    patch_ids: Sequence[PatchId],
    repo: str,
    *,
    base_model: str | None,
    licence: str | None,
    private: bool,
    tool_version: str,
    remote: Remote,
    draft: Draft,
    dry_run: bool = False,
) -> hub.PushReceipt:
    """Push registered patches and a model card as one commit.

    Args:
        registry: where the patches are.
        patch_ids: which.
        repo: `org/name`.
        base_model: the base's id on the Hub; None: what the card says already.
        licence: for the card; None: what the patches are signed with, what the card says already, or what the base's
            page on the Hub says, in this order.
        private: whether a repository that is made on the way is private.
        tool_version: which rasura says on the card that it wrote it.
        remote: which Hub.
        draft: the audit entry.
        dry_run: look at the repository and say what would be written; nothing is, here neither.

    Raises:
        VerificationError: a patch that this registry would not apply is not pushed either.
        InputError: one base model for patches of several bases; a licence or model that is no name.
        HubError, ConflictError, NotFoundError: see `rasura.registry.hub.push`.
    """
    draft = replace(draft, patches=tuple(patch_ids), details={"repo": repo})
    with log_failure(registry, draft, dry_run=dry_run):
        describe = Describer.of(registry, base_model)
        leaving = [_leaving(registry, patch_id, describe) for patch_id in patch_ids]
        if licence:
            parse_licence(licence)
        receipt = hub.push(
            [files for files, _ in leaving],
            repo,
            message=f"Add {len(leaving)} concept-erasure patch{'es' if len(leaving) > 1 else ''}",
            card=CardFacts(
                tool_version, tuple(facts for _, facts in leaving), licence, describe.later, describe.retired
            ),
            endpoint=remote.endpoint,
            token=remote.token,
            private=private,
            dry_run=dry_run,
        )
    if not dry_run:
        registry.note(replace(draft, details={"repo": repo, "commit": receipt.commit}))
    return receipt


def pull_patches(
    registry: Registry,
    reference: str,
    *,
    remote: Remote,
    draft: Draft,
    only: Sequence[str] = (),
    dry_run: bool = False,
) -> Pull:
    """Pull signed patches of a repository at one pinned commit, and register those that count here, all in one go.

    What a key that is not trusted here signed, or is not what was signed, is left out and named; the log says so.

    Args:
        registry: where they go; its keys decide on trust.
        reference: `org/name` or `org/name@revision`.
        remote: which Hub.
        draft: the audit entry of each patch.
        only: ids, beginnings of ids, or concepts of those that are wanted; none: all.
        dry_run: read and verify them, and register nothing; not logged.

    Raises:
        VerificationError: none of them counts here; nothing is registered.
        HubError, NotFoundError, AmbiguousIdError: see `rasura.registry.hub.fetch`.
    """
    draft = replace(draft, details={"repo": reference})
    with log_failure(registry, draft, dry_run=dry_run):
        repo, revision = hub.parse_ref(reference)
        pinned = hub.resolve_revision(repo, revision, endpoint=remote.endpoint, token=remote.token)
        fetched = hub.fetch(
            pinned,
            open_bundle=lambda bundle: open_bundle(registry, bundle)[1],
            only=only,
            endpoint=remote.endpoint,
            token=remote.token,
        )
        good, refused = _sorted_out(registry, fetched)
        if not good:
            raise hub.explain(pinned, refused)
        signers = [find_new_signers(registry, verified) for _, verified in good]
        if dry_run:
            ids = [verified.patch.patch_id for _, verified in good]
            told = list(zip(ids, find_new(registry, ids), strict=True))
            return Pull(pinned, _list_pulled(good, told, signers), refused)
        source = f"{pinned.repo}@{pinned.commit}"
        noted = replace(draft, details={"repo": pinned.repo, "commit": pinned.commit})
        added = add_signed(registry, [SignedPatch(patch.files, source, noted) for patch, _ in good])
    for each in refused:
        where = {"repo": pinned.repo, "commit": pinned.commit, "path": each.path, "signer": each.signer}
        registry.note(describe_outcome(replace(draft, details=where), each.error))
    return Pull(pinned, _list_pulled(good, added, signers), refused)


def _list_pulled(
    good: Sequence[tuple[hub.FetchedPatch, Verified]],
    added: Sequence[tuple[PatchId, bool]],
    signers: Sequence[tuple[KeyId, ...]],
) -> list[Pulled]:
    """What a pull took in, or would take in: each patch with whether it is new and who signed it, too."""
    return [
        Pulled(patch_id, new, (*patch.ignored, *_left(patch, verified)), keys)
        for (patch, verified), (patch_id, new), keys in zip(good, added, signers, strict=True)
    ]


def _left(patch: hub.FetchedPatch, verified: Verified) -> list[str]:
    """Paths of signatures that are not kept."""
    return [f"{patch.path}/{name}" if patch.path else name for name in list_left(verified, patch.files)]


def _sorted_out(
    registry: Registry, fetched: hub.Fetched
) -> tuple[list[tuple[hub.FetchedPatch, Verified]], list[hub.RefusedPatch]]:
    """What verifies, and what does not although its bytes are those that a trusted key signed."""
    good, refused = [], [*fetched.refused]
    for patch in fetched.patches:
        try:
            verified = verify_files(registry, patch.files)
            check_may_come_in(registry, verified)
        except VerificationError as error:
            manifest = PatchId(sha256(patch.files.get(MANIFEST, b"")))
            signer = str(read_claim(patch.files[SIGNATURE]).key_id)
            refused.append(hub.RefusedPatch(patch.path, manifest, signer, error))
        else:
            good.append((patch, verified))
    return good, refused


def _leaving(registry: Registry, patch_id: PatchId, describe: Describer) -> tuple[hub.PatchFiles, PatchFacts]:
    """A registered patch, verified, as the Hub gets it, and what the card says of it."""
    files = registry.patch_files(patch_id)
    patch = verify_files(registry, files).patch
    facts = describe.patch(patch.manifest)
    made = encode_beside(patch, describe.lora_names(facts.base)) if facts.comfyui else None
    if made is None:
        return hub.PatchFiles(patch_id, files), replace(facts, comfyui="")
    return hub.PatchFiles(patch_id, files, {facts.comfyui: made}), facts
