"""Erasing for the registry: a base by name, concepts in words, signed patches as the result."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.erasing import list_doubts
from rasura.patches.checks.policy import Policy
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import BaseMismatchError, ErasureRefusedError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.patch import Patch
from rasura.patches.models.base_identity import LAYERS, find_cross_attention
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.concept_prompts import Target, prompts_of
from rasura.patches.prompts.retain_set import RetainSet, find_named
from rasura.patches.solving.by_space import list_through
from rasura.patches.solving.conditioning import Conditioning, measure_conditioning_of
from rasura.patches.solving.fit_request import fit_request
from rasura.patches.solving.judge_erasure import choose_anchors, judge_erasure
from rasura.patches.solving.moments import Moments
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import SHORT, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import OpenBase, check_base_there, open_base
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.erase.encoded_texts import with_memory
from rasura.registry.erase.others import find_others
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.trust.check import load_stack
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.register_patch import SignedPatch, add_signed, find_new
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.verified_patch import load_verified, read_signed_files

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Erased:
    """A patch that was made and registered; `new` is False where the registry held it already.

    Attributes:
        patch: what was made.
        new: whether the registry did not hold it before.
        doubts: what speaks against its erasing anything, in sentences.
    """

    patch: Patch
    new: bool
    doubts: tuple[str, ...] = ()


def erase(
    registry: Registry,
    base: str,
    request: EraseRequest,
    *,
    key: str | None,
    protect: Sequence[PatchId],
    draft: Draft,
    progress: Progress,
    device: str = "cpu",
    work: Path | None = None,
    protect_others: bool = False,
    dry_run: bool = False,
    told: Callable[[EraseRequest], None] | None = None,
) -> tuple[Erased, ...]:
    """Erase the request's concepts from a base: one signed, registered patch each.

    Args:
        registry: where the patches go.
        base: name, digest or folder of the base.
        request: what to erase and how.
        key: name of the key to sign with; None takes the only one.
        protect: registered patches whose targets must stay untouched.
        draft: the audit entry of each patch.
        progress: told what is going on.
        device: where methods that look through the UNet compute.
        work: a folder where a long training leaves checkpoints; asked again with the same one, it goes on from there.
        told: called once, before anything is solved, with the request as its lists fit the text encoder.
        dry_run: solve and measure, and register nothing; not logged, and no key is needed.
        protect_others: leave alone also whatever `find_others` finds: patches of this base and of other concepts.

    Raises:
        RefusedError: the mathematics says no; logged as refused.
        RasuraError: anything else; logged as failed. No patch is registered then, however many were made.
    """
    with (
        log_failure(registry, replace(draft, details={"base": base, **_asked(request)}), dry_run=dry_run),
        _hinting_anchors(base, request.retain),
    ):
        obstacles = Obstacles()
        look_ahead_of_erasure(registry, base, key, protect, obstacles, dry_run=dry_run)
        obstacles.refuse()
        opened = open_base(registry, base, replace(draft, action="base.add"), progress, dry_run=dry_run)
        opened = with_memory(registry, opened)
        request = fit_request(opened.encoder, request)
        if told is not None:
            told(request)
        if protect_others:
            concepts = [target.concept for target in request.targets]
            protect = (*protect, *find_others(registry, {opened.record.digest}, concepts))
        known = {patch_id: load_verified(registry, patch_id) for patch_id in protect}
        full = _anchored(opened, find_guarded(request, known, opened), registry.policy())
        patches = _built(opened, full, progress, open_moments(registry, opened), device=device, work=work)
        judged = judge_patches(opened, full, patches, registry.policy(), progress)
        doubts = [(*own, *_list_drawn(target, known)) for own, target in zip(judged, full.targets, strict=True)]
        if dry_run:
            fresh = find_new(registry, [patch.patch_id for patch in patches])
        else:
            source, private = f"erased from {opened.record.name}", find_eraser(registry, key)
            signed = [SignedPatch(read_signed_files(made, private), source, draft, request.retain) for made in patches]
            fresh = tuple(new for _, new in add_signed(registry, signed))
    return tuple(Erased(patch, new, own) for patch, new, own in zip(patches, fresh, doubts, strict=True))


@contextmanager
def _hinting_anchors(base: str, retain: RetainSet | None) -> Iterator[None]:
    """A refusal that names anchors that would do says the command that takes the first of them."""
    try:
        yield
    except ErasureRefusedError as error:
        suggest_anchor(error, f"rasura erase --base {shlex.quote(base)}", name_retain(retain))
        raise


def look_ahead_of_erasure(
    registry: Registry,
    base: str,
    key: str | None,
    protect: Sequence[PatchId],
    obstacles: Obstacles,
    *,
    dry_run: bool = False,
) -> None:
    """Note all that stands in the way of an erasure and can be seen before the base is opened; nothing is written.

    Args:
        registry: where the patches would go.
        base: name, digest or folder of the base.
        key: name of the key to sign with.
        protect: registered patches whose targets must stay untouched.
        obstacles: gets what is found.
        dry_run: nothing will be signed.
    """
    if not dry_run:
        with obstacles.noting():
            find_eraser(registry, key)
    with obstacles.noting():
        require_checkpoint(registry, registry.policy())
    with obstacles.noting():
        check_base_there(registry, base)
    load_stack(registry, dict.fromkeys(protect, ONE), obstacles=obstacles)


def judge_patches(
    opened: OpenBase,
    request: EraseRequest,
    patches: Sequence[Patch],
    policy: Policy,
    progress: Progress,
    *,
    standing: Collection[str] = (),
) -> list[tuple[str, ...]]:
    """What speaks against each patch's erasing anything, before it is signed or registered; in sentences.

    Args:
        opened: the base.
        request: what was asked for; its retain set is the scale.
        patches: what came of it.
        policy: how like its target an anchor may be.
        progress: told what is going on.
        standing: concepts that became this anchor before; of them everything is only said.

    Raises:
        ErasureRefusedError: an anchor that draws the target; those that would do are named. A patch that leaves its
            target where it was.
    """
    progress("judging the erasure", 0, 1)
    found = judge_erasure(opened.host, opened.encoder, request, patches, policy, standing=standing)
    progress("judging the erasure", 1, 1)
    return [tuple(list_doubts([judgement])) for judgement in found] or [()] * len(patches)


def suggest_anchor(error: ErasureRefusedError, begin: str, end: str = "") -> None:
    """Where a refusal names anchors that would do, its hint becomes the command that takes the first of them.

    Where a method did too little, it becomes the command without that method's choices.

    Args:
        error: the refusal.
        begin: the command up to the concept.
        end: what follows the anchor.
    """
    match error.details:
        case {"concept": str(concept), "anchors": [str(anchor), *_]}:
            error.hint = f"{begin} --concept {shlex.quote(concept)} --anchor {shlex.quote(anchor)}{end}"
        case {"concept": str(concept), "anchor": str(anchor), "moved": str(), **others}:
            rule = f" --rank-rule {others['rule']}" if "rule" in others else ""
            error.hint = f"{begin} --concept {shlex.quote(concept)} --anchor {shlex.quote(anchor)}{end}{rule}"


def name_retain(retain: RetainSet | None) -> str:
    """The option that names a retain set's file."""
    return "" if retain is None else f" --retain {shlex.quote(retain.source)}"


def _list_drawn(target: Target, known: Mapping[PatchId, Patch]) -> Iterator[str]:
    """What one of the patches that are left alone erases, and the target would become."""
    for patch_id, patch in known.items():
        spoken = (patch.manifest.concept.text, *patch.manifest.names)
        if named := find_named(target.anchor, spoken, target.spoken):
            yield (
                f"{target.concept} becomes {target.anchor}, and {named} is what {patch_id[:SHORT]} erases: where both "
                f"are applied, {named} is drawn again"
            )


def _anchored(opened: OpenBase, request: EraseRequest, policy: Policy) -> EraseRequest:
    return choose_anchors(opened.host, opened.encoder, request, policy)


def judge_conditioning(made: Sequence[Erased]) -> Conditioning | None:
    """How well the concepts of one request are told apart; None for one concept, or where nothing tells."""
    patches = [item.patch for item in made]
    protected = [patch.manifest.protected for patch in patches]
    if len(patches) < 2 or any(p.reads.keys() - p.spaces.keys() or p.basis.rank == 0 for p in protected):  # noqa: PLR2004
        return None
    return measure_conditioning_of(patches)


def find_guarded(request: EraseRequest, known: Mapping[PatchId, Patch], opened: OpenBase) -> EraseRequest:
    """The request, which also leaves the targets of these patches alone.

    Raises:
        BaseMismatchError: a patch whose targets another text encoder or tokenizer gave, or whose layers read text at
            another place of the denoiser: its targets are other vectors, of whatever width.
    """
    base = opened.identity
    through = _find_through(opened, request.layers) if known else ()
    for patch_id, patch in known.items():
        theirs = patch.manifest.base
        if (theirs.text_encoder, theirs.tokenizer) != (base.text_encoder, base.tokenizer):
            raise BaseMismatchError(
                f"patch {patch_id[:12]} cannot be protected here: its targets are of text encoder "
                f"{theirs.text_encoder[:12]} and tokenizer {theirs.tokenizer[:12]}, expected {base.text_encoder[:12]} "
                f"and {base.tokenizer[:12]}",
                hint="rasura patch list",
            )
        if frozenset(theirs.through) != frozenset(through):
            raise BaseMismatchError(
                f"patch {patch_id[:12]} cannot be protected here: its layers read text {_behind(theirs.through)}, "
                f"{request.layers} reads it {_behind(through)}",
                hint=f"rasura patch show {patch_id[:12]}",
            )
    guarded: dict[PatchId, torch.Tensor] = {patch_id: patch.tensors.targets for patch_id, patch in known.items()}
    apart = {i: {str(s): own.targets for s, own in patch.tensors.pairs.items()} for i, patch in known.items()}
    concepts = {patch_id: patch.manifest.concept for patch_id, patch in known.items()}
    prompts = {patch_id: prompts_of(concept.text, concept.templates) for patch_id, concept in concepts.items()}
    return replace(request, guarded=guarded, guarded_apart=apart, guarded_prompts=prompts)


def _find_through(opened: OpenBase, layers: str) -> tuple[TensorIdentity, ...]:
    """What text goes through before these layers read it; nothing before others than those that read text."""
    if layers not in LAYERS:
        return ()
    names = find_cross_attention(opened.host.parameters(), layers)
    return list_through(opened.encoder.reading_by_space(layers, names))


def _behind(through: Sequence[TensorIdentity]) -> str:
    return f"behind {through[0].name}" if through else "as the encoder gives it"


def _built(
    opened: OpenBase, request: EraseRequest, progress: Progress, moments: Moments, *, device: str, work: Path | None
) -> tuple[Patch, ...]:
    def denoiser() -> Denoiser:
        return Denoiser.load(opened.host, opened.host.folder, device)

    return build_patches(
        opened.host, opened.encoder, opened.identity, request, progress, denoiser=denoiser, work=work, moments=moments
    )


def _asked(request: EraseRequest) -> dict[str, str]:
    return {"concepts": "; ".join(target.concept for target in request.targets)[:1000]}
