"""Erasures that other programs made, registered: read, compared with a base, split, measured, signed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.split import LowRank, reduce_alone
from rasura.patches.erasers.adopted import SEPARABLE, WHOLE, Adopted, Given, name_layers
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.erasers.request_for import request_for
from rasura.patches.errors import BaseMismatchError, ErasureRefusedError, InputError, NotFoundError
from rasura.patches.foreign.changes import PICTURE, TEXT, Size, find_changes, refuse_other
from rasura.patches.foreign.open_foreign import open_foreign
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import HeldOut, RetainSet
from rasura.patches.solving.fit_request import fit_request
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import ParamName, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import OpenBase, identify_folder, open_base
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.erase.erase import find_guarded, judge_patches
from rasura.registry.erase.others import find_others
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.register_patch import SignedPatch, add_signed, find_new
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.verified_patch import load_verified, read_signed_files

__all__ = ["Adoption", "Foundling", "Portion", "adopt"]

Progress = Callable[[str, int, int], None]

_NEAR: Final = 0.6
"""What a change may leave of its concept at the best scale, for that scale to be advised."""


@dataclass(frozen=True, slots=True)
class Portion:
    """How much of somebody else's ΔW is taken.

    Attributes:
        whole: all of it, promising nothing, instead of its separable part.
        leave_out: adopt without the changes that the patch cannot hold, instead of refusing.
        scale: it is multiplied by this; None: 1, where the file says how its factors are scaled.
        energy: share of each layer's ‖ΔW‖² to carry; None: the eraser's.
        rank: most detectors; None: the eraser's.
    """

    whole: bool = False
    leave_out: bool = False
    scale: float | None = None
    energy: float | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is to be adopted, and as what.

    Attributes:
        source: the file or folder.
        target: the concept that it erases, and what that becomes.
        retain: what is to be kept; None protects the null prompt alone.
        made_by: one of `rasura.patches.erasers.adopted.MAKERS`.
        portion: how much of the change is taken.
        tokens: which tokens stand for the concept; None: the eraser's.
        templates: prompts with one `{}`; empty: generic ones.
        rank_rule: cut of the retained spectrum; None: the eraser's.
        held_out: concepts on which leak is only measured, or the list that they were read from; empty: the usual ones.
        licence: SPDX id or name for the patch.
    """

    source: Path
    target: Target
    retain: RetainSet | None = None
    made_by: str = "other"
    portion: Portion = Portion()
    tokens: str | None = None
    templates: tuple[str, ...] = ()
    rank_rule: str | None = None
    held_out: HeldOut = ()
    licence: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Foundling:
    """An adopted patch.

    Attributes:
        patch: what was registered.
        new: False where the registry held it already.
        form: whole weights, or an adapter.
        sizes: of every change in the file, whether it was taken or not.
        retain: the retain set without what names the concept.
        doubts: what speaks against its erasing anything, in sentences.
    """

    patch: Patch
    new: bool
    form: str
    sizes: tuple[Size, ...]
    retain: RetainSet | None
    doubts: tuple[str, ...] = ()


def adopt(
    registry: Registry,
    base: str,
    adoption: Adoption,
    *,
    key: str | None,
    draft: Draft,
    progress: Progress,
    model: Path | None = None,
    protect: Sequence[PatchId] = (),
    protect_others: bool = False,
    dry_run: bool = False,
    told: Callable[[EraseRequest], None] = lambda _: None,
) -> Foundling:
    """Make a signed, registered patch of an erasure that another program made.

    Args:
        registry: where the patch goes.
        base: name, digest or folder of the base that it was made on.
        adoption: what, and as what.
        key: name of the key to sign with; None takes the only one.
        draft: the audit entry.
        progress: told what is going on.
        model: where the base's folder lies now, if not where it was registered.
        protect: registered patches whose targets the separable part must not touch.
        protect_others: also those of whatever `find_others` finds: patches of this base and of other concepts.
        told: called once, before anything is solved, with the request as its lists fit the text encoder.
        dry_run: read, split and measure, and register nothing; not logged, and no key is needed.

    Raises:
        RefusedError: it changes what a patch cannot hold, nothing of it is separable, or it leaves its target where it
            was; logged as refused.
        BaseMismatchError: the folder holds another base; logged as refused.
        RasuraError: anything else, such as a file that cannot be read; logged as failed.
    """
    details = {"base": base, "file": adoption.source.name, "concepts": adoption.target.concept[:1000]}
    with log_failure(registry, replace(draft, details=details), dry_run=dry_run):
        require_checkpoint(registry, registry.policy())
        private = None if dry_run else find_eraser(registry, key)
        opened = _opened(registry, base, model, replace(draft, action="base.add"), progress, dry_run=dry_run)
        eraser, sizes = _read(opened, adoption, progress)
        request = fit_request(opened.encoder, _request(opened, adoption, eraser))
        told(request)
        if protect_others:
            protect = (*protect, *find_others(registry, {opened.record.digest}, [adoption.target.concept]))
        known = {patch_id: load_verified(registry, patch_id) for patch_id in protect}
        full = find_guarded(request, known, opened)
        patch = _built(registry, opened, full, progress)
        doubts = _judged(registry, opened, full, patch, progress)
        if private is None:
            (new,) = find_new(registry, [patch.patch_id])
        else:
            source, file = f"adopted from {adoption.source.name}", adoption.source.name
            noted = replace(draft, details={"file": file, "made_by": adoption.made_by, "take": eraser.take})
            signed = SignedPatch(read_signed_files(patch, private), source, noted, request.retain)
            ((_, new),) = add_signed(registry, [signed])
    return Foundling(patch, new, eraser.form, sizes, request.retain, doubts)


def _judged(
    registry: Registry, opened: OpenBase, request: EraseRequest, patch: Patch, progress: Progress
) -> tuple[str, ...]:
    """What speaks against its erasing anything: whether its anchor is a good one was another program's choice.

    Raises:
        ErasureRefusedError: it leaves its target where it was.
    """
    policy = replace(registry.policy(), alike=math.inf)
    try:
        (doubts,) = judge_patches(opened, request, [patch], policy, progress)
    except ErasureRefusedError as error:
        best = patch.manifest.measured.get("best_scale", "0")
        near = float(patch.manifest.measured.get("best_residual", "1")) < _NEAR
        error.hint = f"--scale {float(best):g}" if near else "--concept TEXT"
        raise
    return doubts


def _opened(
    registry: Registry, base: str, model: Path | None, draft: Draft, progress: Progress, *, dry_run: bool
) -> OpenBase:
    if model is None:
        try:
            return open_base(registry, base, draft, progress, dry_run=dry_run)
        except NotFoundError as error:
            if "moved_from" not in error.details:
                raise
            raise NotFoundError(
                error.message, hint="rasura adopt FILE --base MODEL --model DIR", **error.details
            ) from None
    record = registry.base(base)
    opened = identify_folder(record, model, progress)
    if opened.identity.digest != record.digest:
        raise BaseMismatchError(
            f"{model} is not base {record.name!r}: expected {record.digest[:12]}, got {opened.identity.digest[:12]}",
            hint=f"rasura base show {record.digest[:12]}",
        )
    return opened


@use_one_thread()
def _read(opened: OpenBase, adoption: Adoption, progress: Progress) -> tuple[Adopted, tuple[Size, ...]]:
    """Everything that the file changes, as the eraser that it becomes."""
    foreign, portion = open_foreign(adoption.source, opened.host.parameters()), adoption.portion
    if not foreign.scaled and portion.scale is None:
        raise InputError(
            f"{foreign.what}: its factors are scaled by what adapter_config.json says, which is not beside it: "
            "expected that file, or the scale lora_alpha / r",
            hint="rasura adopt FILE --base MODEL --concept TEXT --scale 1",
        )
    chosen: dict[str, float | int] = {} if portion.energy is None else {"energy": portion.energy}
    chosen |= {} if portion.rank is None else {"rank_limit": portion.rank}
    how = Adopted(
        adoption.made_by,
        foreign.form,
        take=WHOLE if portion.whole else SEPARABLE,
        scale=1.0 if portion.scale is None else portion.scale,
        **chosen,  # type: ignore[arg-type]  # its choices of numbers
    )
    text: dict[ParamName, torch.Tensor] = {}
    picture: dict[ParamName, LowRank] = {}
    sizes: list[Size] = []
    digests: list[str] = []
    for change in find_changes(opened.host, foreign, how.scale, progress):
        sizes.append(change.size)
        digests.append(f"{change.size.name} {digest_tensor(change.delta)}\n")
        if change.size.kind == TEXT:
            text[change.size.name] = change.delta
        elif change.size.kind == PICTURE and portion.whole:
            picture[change.size.name] = reduce_alone(change.delta, how.energy, how.rank_limit)
    refuse_other(sizes, picture=portion.whole, leave_out=portion.leave_out, what=foreign.what)
    left = [size for size in sizes if size.name not in text and size.name not in picture]
    given = Given(text, picture, sum(size.change**2 for size in left), len(left))
    return replace(how, delta=digest_of("".join(digests).encode()), given=given), tuple(sizes)


def _request(opened: OpenBase, adoption: Adoption, eraser: Adopted) -> EraseRequest:
    taken = {**eraser.given.text, **eraser.given.picture}
    return request_for(
        eraser,
        (adoption.target,),
        adoption.retain,
        layers=name_layers(opened.host.parameters(), taken),
        tokens=adoption.tokens,
        rank_rule=adoption.rank_rule,
        templates=adoption.templates,
        held_out=adoption.held_out,
        licence=adoption.licence,
    )


def _built(registry: Registry, opened: OpenBase, request: EraseRequest, progress: Progress) -> Patch:
    moments = open_moments(registry, opened)
    return build_patches(opened.host, opened.encoder, opened.identity, request, progress, moments=moments)[0]
