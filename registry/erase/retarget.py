"""Patches for another base that shares the text encoder: the same detector, the responses of the other weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.algebra.increment import Increment
from rasura.patches.checks.kernels.disturbance import measure_own_leak
from rasura.patches.erasers.interface import Reference
from rasura.patches.errors import BaseMismatchError, DriftError, NotFoundError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.patch import Patch
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.by_space import list_through
from rasura.patches.solving.fit_request import fit_request
from rasura.patches.solving.from_manifest import request_prompts
from rasura.patches.solving.measure import Measurer
from rasura.patches.solving.reproject import read_stored_erasure, with_references
from rasura.patches.solving.retarget import Responses, build_increments_on, check_layers, responses_of, retarget_patch
from rasura.patches.solving.solve import references_of
from rasura.patches.types import Digest, ParamName, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.erase.solve_again import Anew, judge_again, read_words
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.register_patch import SignedPatch, add_signed, find_new
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.verified_patch import load_verified, read_signed_files

__all__ = ["Carried", "Retargeted", "carry", "find_other_reader", "retarget", "sign_carried"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Retargeted:
    """A patch on another base.

    Attributes:
        old: the patch on its own base.
        patch: the new patch.
        new: False where the registry held it already.
        base: name of the other base.
        way: whence the responses came: "weights" of the old base, or stored "targets".
        fit: how well they are a map of the text embedding: relative residual.
        promise_old: what the old patch leaks on its protected rows, relative to its base's own outputs there.
        promise_new: the same of the new one, on the other base.
        seconds: how long solving took, without reading and measuring.
        doubts: what speaks against its erasing anything there, in sentences.
    """

    old: Patch
    patch: Patch
    new: bool
    base: str
    way: str
    fit: float
    promise_old: float
    promise_new: float
    seconds: float
    doubts: tuple[str, ...] = ()


def retarget(
    registry: Registry,
    patch_id: PatchId,
    base: str,
    how: Anew,
    *,
    draft: Draft,
    progress: Progress,
    dry_run: bool = False,
) -> Retargeted:
    """Express a closed-form patch on another base's weights.

    The leak on retained prompts is measured where their words are known, in the registry or in `how.retain`.

    Args:
        registry: where the patch is, and goes.
        patch_id: the patch.
        base: name, digest or folder of the other base.
        how: `retain`, `column`, `held_out` and `key` count.
        draft: the audit entry.
        progress: told what is going on.
        dry_run: solve and measure, and register nothing; not logged, and no key is needed.

    Raises:
        BaseMismatchError: another text encoder or tokenizer, or without the patch's layers.
        RefusedError: the responses are no map of the text embedding; logged as refused.
        InputError: the patch touches the text encoder.
        BoundExceededError: a response too large for the grid.
    """
    with log_failure(registry, replace(draft, patches=(patch_id,), details={"base": base}), dry_run=dry_run):
        require_checkpoint(registry, registry.policy())
        private = None if dry_run else find_eraser(registry, how.key)
        old = load_verified(registry, patch_id)
        other = open_base(registry, base, replace(draft, action="base.add"), progress, dry_run=dry_run)
        if (differs := find_other_reader(old, other)) is not None:
            raise _otherwise(old, other, *differs)
        made = carry(registry, old, other, how, draft=draft, progress=progress, dry_run=dry_run)
        if private is None:
            (new,) = find_new(registry, [made.patch.patch_id])
        else:
            ((_, new),) = add_signed(registry, [sign_carried(made, other, private, draft)])
    return Retargeted(
        old,
        made.patch,
        new,
        other.record.name,
        made.way,
        made.fit,
        made.promise_old,
        made.promise_new,
        made.seconds,
        made.doubts,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """A patch on another base before it is registered: see `Retargeted`; and what was retained.

    Attributes:
        own: pristine weights that the old patch was computed on, by parameter; None where they are not at hand.
        as_it_is: what the old increments would leave on the other base's weights, as `residual` in a manifest.
    """

    old: Patch
    patch: Patch
    way: str
    fit: float
    promise_old: float
    promise_new: float
    seconds: float
    words: RetainSet | None
    doubts: tuple[str, ...]
    own: Mapping[ParamName, torch.Tensor] | None
    as_it_is: float


def carry(
    registry: Registry, old: Patch, other: OpenBase, how: Anew, *, draft: Draft, progress: Progress, dry_run: bool
) -> Carried:
    """Express a patch on another base that reads text in the same way, and measure it there; nothing is registered.

    Raises:
        RasuraError: see `retarget`.
    """
    words = _words(registry, old, how)
    check_layers(old, other.host.parameters(), other.record.name)
    own = _own_weights(registry, old, other, draft, progress, dry_run=dry_run)
    responses, increments, seconds = _solved(old, own, other)
    references = _references(registry, old, other, words, how=how, progress=progress)
    weights = other.host.originals(old.tensors.increments)
    patch = retarget_patch(old, increments, responses.way, other.identity, weights, references=references)
    doubts = judge_again(registry, other, patch, words, how=how, progress=progress)
    stored, columns, basis = read_stored_erasure(old)
    stays = Measurer(weights, references[""]).measure(with_references(stored, references), columns, basis)
    return Carried(
        old,
        patch,
        responses.way,
        responses.fit,
        measure_own_leak(old, own),
        measure_own_leak(patch, weights),
        seconds,
        words,
        doubts,
        own,
        stays.residual,
    )


def sign_carried(made: Carried, other: OpenBase, private: SigningKey, draft: Draft) -> SignedPatch:
    """The patch with its signature, and what the log shall say of it."""
    old = made.old.patch_id
    noted = replace(draft, details={"from": old, "responses": made.way})
    source = f"retarget of {old[:12]} to {other.record.name}"
    return SignedPatch(read_signed_files(made.patch, private), source, noted, made.words)


def find_other_reader(old: Patch, other: OpenBase) -> tuple[str, str, str] | None:
    """What of the other base reads text otherwise than the patch's own: a name, and both digests; None: nothing."""
    mine, theirs = old.manifest.base, other.identity
    layers = old.manifest.eraser.options.get("layers", "")
    through = list_through(other.encoder.reading_by_space(layers, sorted(old.tensors.increments)))
    for what, expected, got in (
        ("text encoder", mine.text_encoder, theirs.text_encoder),
        ("tokenizer", mine.tokenizer, theirs.tokenizer),
        ("text encoder's dtype", mine.read_as or "F32", other.encoder.dtype or "F32"),
        ("network that text goes through", _digest(mine.through), _digest(through)),
    ):
        if expected != got:
            return what, expected, got
    return None


def _digest(through: tuple[TensorIdentity, ...]) -> Digest:
    return digest_tensor_set([(p.name, p.dtype, p.shape, p.sha256) for p in through])


def _otherwise(old: Patch, other: OpenBase, what: str, expected: str, got: str) -> BaseMismatchError:
    return BaseMismatchError(
        f"base {other.record.name!r} reads text in another way: expected the {what} {expected[:12]} of patch "
        f"{old.patch_id[:12]}, got {got[:12]}",
        hint="rasura erase --base MODEL --concept TEXT",
    )


def _words(registry: Registry, old: Patch, how: Anew) -> RetainSet | None:
    """The retain set, for measuring; None where it is not known and no file was named."""
    try:
        return read_words(registry, old.manifest, how)
    except NotFoundError:
        if how.retain is not None:
            raise
        return None


def _solved(
    old: Patch, own: Mapping[ParamName, torch.Tensor] | None, other: OpenBase
) -> tuple[Responses, Mapping[ParamName, Increment], float]:
    """The responses, the increments on the other base, and the seconds that took without reading any weights."""
    weights = other.host.originals(old.tensors.increments)
    started = time.perf_counter()
    responses = responses_of(old, own)
    increments = build_increments_on(old, responses, weights)
    return responses, increments, time.perf_counter() - started


def _own_weights(
    registry: Registry, old: Patch, other: OpenBase, draft: Draft, progress: Progress, *, dry_run: bool
) -> Mapping[ParamName, torch.Tensor] | None:
    """The pristine weights that the patch was computed on; None where they are no longer at hand."""
    if old.manifest.base.sha256 == other.record.digest:
        return other.host.originals(old.tensors.increments)
    try:
        noted = replace(draft, action="base.add")
        own = open_base(registry, old.manifest.base.sha256, noted, progress, dry_run=dry_run)
    except (NotFoundError, DriftError):
        return None
    return own.host.originals(old.tensors.increments)


def _references(
    registry: Registry, old: Patch, other: OpenBase, words: RetainSet | None, *, how: Anew, progress: Progress
) -> dict[str, Reference]:
    request = fit_request(other.encoder, request_prompts([old.manifest], words, how.held_out))
    touched = old.tensors.increments
    return references_of(other.encoder, request, touched, progress, open_moments(registry, other))
