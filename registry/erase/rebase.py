"""Patches that interfere, solved anew: each beside the others' targets (rebase), or all of them together (join).

What comes out are new patches, which supersede the old ones; nothing registered is changed. All of a call's patches are
made before the first is registered, and all are registered in one transaction: a failure registers none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rasura.patches.checks.kernels.disturbance import measure_disturbance
from rasura.patches.errors import ErasureRefusedError, InputError
from rasura.patches.format.patch import Patch
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.plain_numbers import say_over
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.conditioning import REFUSE, Conditioning, measure_conditioning_of
from rasura.patches.solving.from_manifest import is_trained
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.others import find_others
from rasura.registry.erase.solve_again import Anew, Workbench, judge_again, read_words
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.register_patch import SignedPatch, add_signed, find_new
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.verified_patch import manifest_of, read_signed_files

__all__ = ["Anew", "Disturbance", "Resolved", "find_all_others", "join", "rebase"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How much of another patch's work a patch disturbs; None where the two read different things.

    Attributes:
        other: the protected patch.
        concept: what that erases.
        before: ‖Δ_old T‖ / ‖Δ_other T‖ on its targets T.
        after: the same of the new patch, and of the other's new one where it has one.
    """

    other: PatchId
    concept: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """A patch in another's place.

    Attributes:
        old: what it supersedes.
        before: the old patch's numbers, on the same prompts as the new one's.
        patch: the new patch.
        new: False where the registry held it already.
        pairs: one for each patch that it leaves alone.
        lost: concepts that the old patch left alone and that nothing here erases: the new one may touch them.
        doubts: what speaks against its erasing anything, in sentences.
    """

    old: Patch
    before: Mapping[str, str]
    patch: Patch
    new: bool
    pairs: tuple[Disturbance, ...]
    lost: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def find_all_others(registry: Registry, ids: Sequence[PatchId]) -> tuple[PatchId, ...]:
    """Every registered patch that these could leave alone: of the same base, of other concepts, and not superseded."""
    mine = [manifest_of(registry, patch_id) for patch_id in ids]
    return find_others(registry, {m.base.sha256 for m in mine}, [m.concept.text for m in mine], ids)


def check_protect(ids: Sequence[PatchId], protect: Iterable[PatchId]) -> None:
    """Refuse to leave a patch alone that is to be solved anew: it would be made once more as it is.

    Raises:
        InputError: naming it.
    """
    if itself := next((i for i in protect if i in ids), None):
        raise InputError(
            f"patch {itself[:12]} cannot be left alone by itself: expected other patches to protect",
            hint=f"rasura patch rebase {' '.join(i[:12] for i in ids)}",
            itself=itself,
        )


def rebase(
    registry: Registry, ids: Sequence[PatchId], how: Anew, draft: Draft, progress: Progress, *, dry_run: bool = False
) -> tuple[Resolved, ...]:
    """Solve each patch anew with the others' targets in its protected set; several leave each other alone, too.

    Trained patches are not trained again: their detectors are projected (`rasura.patches.solving.reproject`).

    Args:
        registry: where the patches are, and go.
        ids: the patches, each once.
        how: what to protect, and what to solve it with.
        draft: the audit entry of each new patch.
        progress: told what is going on.
        dry_run: solve and measure, and register nothing; not logged, and no key is needed.

    Raises:
        RefusedError: the mathematics says no; logged as refused.
        BaseMismatchError: patches of different bases or text encoders.
        NotFoundError: the words of a retain set, a protected patch, or the base are not here.
        InputError: a patch named twice, or made in a way that this program does not know.
    """

    def made() -> list[_Made]:
        bench = Workbench.opened(registry, ids, how, draft, progress, dry_run=dry_run)
        found = []
        for i, old in bench.old.items():
            guards = bench.guards([i], [other for other in ids if other != i])
            if is_trained(old.manifest.eraser):
                patch = bench.projected(old, guards)
            else:
                (patch,) = bench.built(bench.request([i]), guards)
            words = read_words(registry, old.manifest, how)
            doubts = judge_again(registry, bench.base, patch, words, how=how, progress=progress)
            found.append(_Made(old, bench.measured(old), patch, guards, bench.lost([i]), words, doubts))
        return found

    return _registered(registry, ids, how, draft, made, dry_run=dry_run)


def join(
    registry: Registry, ids: Sequence[PatchId], how: Anew, draft: Draft, progress: Progress, *, dry_run: bool = False
) -> tuple[tuple[Resolved, ...], Conditioning]:
    """Solve patches together that were made in the same way: still one patch a concept, each superseding its old one.

    Args:
        registry: where the patches are, and go.
        ids: the patches, two or more, each once.
        how: what to protect besides, and what to solve it with.
        draft: the audit entry of each new patch.
        progress: told what is going on.
        dry_run: as for `rebase`.

    Returns:
        The patches, and how well their concepts are told apart.

    Raises:
        InputError: fewer than two, trained ones, or made in different ways; the differences are named.
        RefusedError: concepts that cannot be told apart, or the mathematics says no otherwise; logged as refused.
        BaseMismatchError, NotFoundError: as for `rebase`.
    """
    judged: list[Conditioning] = []

    def made() -> list[_Made]:
        if len(ids) < 2:  # noqa: PLR2004
            raise InputError(f"expected two patches or more to join, got {len(ids)}", hint="rasura patch rebase ID")
        bench = Workbench.opened(registry, ids, how, draft, progress, dry_run=dry_run)
        request, guards = bench.request(ids), bench.guards(ids, ())
        judged.append(measure_conditioning_of(list(bench.old.values())))
        _check_told_apart(judged[0])
        patches, lost = bench.built(request, guards), bench.lost(ids)
        kept = request.retain
        doubts = [judge_again(registry, bench.base, patch, kept, how=how, progress=progress) for patch in patches]
        return [
            _Made(old, bench.measured(old), patch, guards, lost, kept, own)
            for old, patch, own in zip(bench.old.values(), patches, doubts, strict=True)
        ]

    return _registered(registry, ids, how, draft, made, dry_run=dry_run), judged[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A new patch before it is registered: see `Resolved`; and what it leaves alone, and what was retained."""

    old: Patch
    before: Mapping[str, str]
    patch: Patch
    guards: Mapping[PatchId, Patch]
    lost: tuple[str, ...]
    words: RetainSet | None
    doubts: tuple[str, ...]


def _registered(
    registry: Registry,
    ids: Sequence[PatchId],
    how: Anew,
    draft: Draft,
    make: Callable[[], list[_Made]],
    *,
    dry_run: bool,
) -> tuple[Resolved, ...]:
    """Make all, then register all; a failure is logged and registers nothing. A dry run makes all, and stops."""
    with log_failure(registry, replace(draft, patches=tuple(dict.fromkeys(ids))), dry_run=dry_run):
        if twice := next((i for n, i in enumerate(ids) if i in ids[:n]), None):
            raise InputError(f"patch {twice[:12]} is named twice: expected each once", hint="rasura patch list")
        require_checkpoint(registry, registry.policy())
        private = None if dry_run else find_eraser(registry, how.key)
        made = make()
        if private is None:
            fresh = find_new(registry, [item.patch.patch_id for item in made])
        else:
            fresh = tuple(new for _, new in add_signed(registry, [_signed(item, private, draft) for item in made]))
    successors = {item.old.patch_id: item.patch for item in made}
    found = []
    for item, new in zip(made, fresh, strict=True):
        beside = {other.old.patch_id: other.old for other in made if other is not item}
        pairs = _pairs(item, {**item.guards, **beside}, successors)
        found.append(Resolved(item.old, item.before, item.patch, new, pairs, item.lost, item.doubts))
    return tuple(found)


def _signed(item: _Made, key: SigningKey, draft: Draft) -> SignedPatch:
    noted = replace(draft, details={"supersedes": item.old.patch_id, "protects": len(item.guards)})
    source = f"{draft.action.partition('.')[2]} of {item.old.patch_id[:12]}"
    return SignedPatch(read_signed_files(item.patch, key), source, noted, item.words)


def _pairs(
    item: _Made, others: Mapping[PatchId, Patch], successors: Mapping[PatchId, Patch]
) -> tuple[Disturbance, ...]:
    return tuple(
        Disturbance(
            patch_id,
            other.manifest.concept.text,
            measure_disturbance(item.old, other),
            measure_disturbance(item.patch, successors.get(patch_id, other)),
        )
        for patch_id, other in sorted(others.items())
    )


def _check_told_apart(found: Conditioning) -> None:
    worst = next(iter(found.groups), None)
    if worst is not None and worst.condition > REFUSE:
        raise ErasureRefusedError(
            f"{', '.join(worst.concepts)} cannot be told apart: their targets have condition "
            f"{say_over(worst.condition, REFUSE)}; {worst.suggestion}",
            hint="rasura patch join ID ID",
            condition=f"{worst.condition:.3e}",
            concepts=list(worst.concepts),
        )
