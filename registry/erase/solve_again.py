"""Registered patches laid open to be solved anew: with their base, their retain set, and what they left alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rasura.patches.erasers.interface import Reference
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import BaseMismatchError, ErasureRefusedError, InputError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import HELD_OUT
from rasura.patches.prompts.retain_set import HeldOut, RetainSet
from rasura.patches.solving.fit_request import fit_request
from rasura.patches.solving.from_manifest import is_trained, request_of, request_prompts
from rasura.patches.solving.measure import Measurer
from rasura.patches.solving.moments import Moments
from rasura.patches.solving.reproject import read_stored_erasure, reproject, with_references
from rasura.patches.solving.solve import build_patches, references_of
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.erase.encoded_texts import with_memory
from rasura.registry.erase.erase import find_guarded, judge_patches, name_retain, suggest_anchor
from rasura.registry.registry import Registry
from rasura.registry.trust.retain_words import find_retained
from rasura.registry.trust.verified_patch import load_verified, manifest_of

__all__ = ["Anew", "Workbench", "judge_again", "read_words"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Anew:
    """How patches are to be solved anew.

    Attributes:
        protect: patches whose targets must stay untouched, besides those that were protected before.
        drop: patches that are protected no longer.
        retain: the retain file, where the registry does not hold its words.
        column: which column of it.
        held_out: concepts on which leak is only measured, or the list that they were read from.
        key: name of the key to sign with; None takes the only one.
    """

    protect: tuple[PatchId, ...] = ()
    drop: tuple[PatchId, ...] = ()
    retain: Path | None = None
    column: str | None = None
    held_out: HeldOut = HELD_OUT
    key: str | None = None


def read_words(registry: Registry, manifest: Manifest, anew: Anew) -> RetainSet | None:
    """The retain set that a patch was made with.

    Raises:
        NotFoundError, DigestMismatchError, RetainSetError: see `rasura.registry.trust.retain_words.find_retained`.
    """
    spec = manifest.protected.retain
    names = (manifest.concept.text, *manifest.protected.concepts)
    return None if spec is None else find_retained(registry, spec, anew.retain, column=anew.column, names=names)


def judge_again(
    registry: Registry, base: OpenBase, patch: Patch, words: RetainSet | None, *, how: Anew, progress: Progress
) -> tuple[str, ...]:
    """What speaks against the erasing of a patch that was made of another one, before it is signed; in sentences.

    Args:
        registry: whose policy counts.
        base: what the patch is for.
        patch: the new patch.
        words: what it retains; None where that is nothing, or where its words are not here: then nothing is judged.
        how: its held-out concepts.
        progress: told what is going on.

    Raises:
        ErasureRefusedError: an anchor that draws the target; it is signed no second time.
    """
    spec = patch.manifest.protected.retain
    if words is None and spec is not None:  # by another scale than it was made with, it might be refused for no reason
        return (f"not judged whether it erases {patch.manifest.concept.text}: the words of {spec.source} are not here",)
    request = request_prompts([patch.manifest], words, how.held_out)
    try:
        (doubts,) = judge_patches(base, request, [patch], registry.policy(), progress)
    except ErasureRefusedError as error:
        suggest_anchor(error, f"rasura erase --base {shlex.quote(base.record.name)}", name_retain(words))
        raise
    return doubts


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """The patches of one call, verified, their base, open, and the moments of the prompts that were encoded so far."""

    registry: Registry
    how: Anew
    old: Mapping[PatchId, Patch]
    base: OpenBase
    progress: Progress
    moments: Moments

    @classmethod
    def opened(
        cls,
        registry: Registry,
        ids: Sequence[PatchId],
        how: Anew,
        draft: Draft,
        progress: Progress,
        *,
        dry_run: bool = False,
    ) -> Workbench:
        """Load the patches and open their base; with `dry_run`, nothing is written.

        Raises:
            BaseMismatchError: they are of different bases.
            NotFoundError, DriftError: the base is not here, or no longer what it was.
            VerificationError: see `rasura.registry.trust.verified_patch.load_verified`.
        """
        old = {patch_id: load_verified(registry, patch_id) for patch_id in ids}
        bases = {patch.manifest.base.sha256: patch_id for patch_id, patch in old.items()}
        if len(bases) > 1:
            named = " and ".join(f"{patch_id[:12]} on {base[:12]}" for base, patch_id in bases.items())
            raise BaseMismatchError(f"expected patches of one base, got {named}", hint="rasura patch list")
        base = open_base(registry, next(iter(bases)), replace(draft, action="base.add"), progress, dry_run=dry_run)
        for patch in old.values():
            _check_dtype(patch, base)
        return cls(registry, how, old, with_memory(registry, base), progress, open_moments(registry, base))

    def request(self, ids: Sequence[PatchId]) -> EraseRequest:
        """The request that erases these patches' concepts together.

        Raises:
            InputError: trained patches, patches made in different ways, or in a way that this program does not know.
        """
        manifests = [self.old[i].manifest for i in ids]
        if odd := next((m for m in manifests if is_trained(m.eraser)), None):
            raise InputError(
                f"patch {odd.patch_id[:12]} was {_origin(odd)}: expected a closed-form method; such a patch can be "
                "kept off others' targets, but not be solved with them",
                hint=f"rasura patch rebase {odd.patch_id[:12]} --protect ID",
            )
        return fit_request(self.base.encoder, request_of(manifests, self._words(manifests), self.how.held_out))

    def guards(self, ids: Sequence[PatchId], beside: Iterable[PatchId]) -> dict[PatchId, Patch]:
        """What the new patches of these leave alone: what they did before, what is asked for, and those beside them.

        Raises:
            NotFoundError: one of them is not here.
        """
        before = [p for i in ids for p in (*self.old[i].manifest.protected.patches, *self._peers(i).values())]
        wanted = dict.fromkeys([*before, *self.how.protect, *beside])
        left = [i for i in wanted if i not in ids and i not in self.how.drop]
        return {i: self.old[i] if i in self.old else load_verified(self.registry, i) for i in left}

    def lost(self, ids: Sequence[PatchId]) -> tuple[str, ...]:
        """Concepts of the patches' old requests that nothing here erases, so that nothing tells their targets."""
        own = {self.old[i].manifest.concept.text for i in ids}
        named = dict.fromkeys(c for i in ids for c in self.old[i].manifest.protected.concepts if c not in own)
        found = {concept for i in ids for concept in self._peers(i)}
        return tuple(concept for concept in named if concept not in found)

    def built(self, request: EraseRequest, guards: Mapping[PatchId, Patch]) -> tuple[Patch, ...]:
        """Solve a request beside these patches.

        Raises:
            RasuraError: see `rasura.patches.solving.solve.build_patches`.
        """
        base, full = self.base, find_guarded(request, guards, self.base)
        return build_patches(base.host, base.encoder, base.identity, full, self.progress, moments=self.moments)

    def projected(self, patch: Patch, guards: Mapping[PatchId, Patch]) -> Patch:
        """Keep a trained patch off these patches' targets.

        Raises:
            InputError: it is to give up what it protects, or what it was trained beside is not told by targets.
            ErasureRefusedError: see `rasura.patches.solving.reproject.reproject`.
        """
        if self.how.drop:
            raise InputError(
                f"patch {patch.patch_id[:12]} was {_origin(patch.manifest)} beside what it protects and cannot give "
                "that up without being made anew: expected no patches to drop",
                hint="rasura erase --base MODEL --concept TEXT",
            )
        full = find_guarded(self._prompts(patch), guards, self.base)
        weights = self.base.host.originals(patch.tensors.increments)
        return reproject(patch, full.guarded, weights, self._references(patch)[""])

    def measured(self, patch: Patch) -> Mapping[str, str]:
        """The patch's numbers on the prompts of this call, so that they compare with a new one's.

        What reads states inside the encoder was measured on these; then the manifest's numbers, without the leak on
        held-out prompts, which may have been others.
        """
        noted = patch.manifest.measured
        if patch.manifest.protected.reads and not patch.manifest.protected.spaces:
            return {name: number for name, number in noted.items() if name != "leak_held_out"}
        erasure, columns, basis = read_stored_erasure(patch)
        weights = self.base.host.originals(patch.tensors.increments)
        references = self._references(patch)
        found = Measurer(weights, references[""]).measure(with_references(erasure, references), columns, basis)
        kept = {name: number for name, number in noted.items() if name not in {"leak_retained", "leak_held_out"}}
        return {**kept, **found.decimals(free=erasure.free, guarded=int(noted.get("guarded", "0")))}

    def _words(self, manifests: Sequence[Manifest]) -> RetainSet | None:
        """The one retain set of these patches, without what names a concept of any of them."""
        names = [m.concept.text for m in manifests]
        found = [read_words(self.registry, m, self.how) for m in manifests]
        common = [words.without(names) if words else None for words in found]
        for manifest, words in zip(manifests, common, strict=True):
            first = common[0]
            if first is not None and words is not None and words.sha256 != first.sha256:
                raise InputError(
                    f"patches {manifests[0].patch_id[:12]} and {manifest.patch_id[:12]} cannot be solved together: "
                    f"expected the same retain set besides their concepts, got {len(first.concepts)} concepts with "
                    f"SHA-256 {first.sha256[:12]} and {len(words.concepts)} with {words.sha256[:12]}",
                    hint=f"rasura patch show {manifest.patch_id[:12]}",
                    differing=["retain set"],
                )
        return common[0]

    def _prompts(self, patch: Patch) -> EraseRequest:
        words = read_words(self.registry, patch.manifest, self.how)
        return fit_request(self.base.encoder, request_prompts([patch.manifest], words, self.how.held_out))

    def _references(self, patch: Patch) -> dict[str, Reference]:
        touched = patch.tensors.increments
        return references_of(self.base.encoder, self._prompts(patch), touched, self.progress, self.moments)

    def _peers(self, patch_id: PatchId) -> dict[str, PatchId]:
        """The patches of the same request, by concept, as far as they are registered here."""
        own = self.old[patch_id].manifest
        found: dict[str, PatchId] = {}
        for concept in own.protected.concepts:
            for record in self.registry.patches(concept=concept, base=own.base.sha256):
                theirs = manifest_of(self.registry, record.patch_id)
                if own.concept.text in theirs.protected.concepts and _made_alike(own, theirs):
                    found.setdefault(concept, record.patch_id)
        return found


def _check_dtype(patch: Patch, base: OpenBase) -> None:
    """Rows that were read in another dtype are other rows: near, and not those that the patch keeps."""
    mine, here = patch.manifest.base.read_as, base.encoder.dtype
    if mine != here and not is_trained(patch.manifest.eraser):
        wanted = {"BF16": "bfloat16"}.get(mine, "float32")
        raise BaseMismatchError(
            f"patch {patch.patch_id[:12]} was solved on text that was read in {mine or 'F32'}: expected the same, got "
            f"{here or 'F32'}; set RASURA_ENCODER_DTYPE={wanted}",
            hint=f"rasura patch show {patch.patch_id[:12]}",
        )


def _origin(manifest: Manifest) -> str:
    """How a patch came that cannot be solved again."""
    return "adopted" if manifest.eraser.name == "adopted" else f"trained by {manifest.eraser.name}"


def _made_alike(one: Manifest, other: Manifest) -> bool:
    """Whether two patches may be of one request."""
    return (one.eraser, one.protected.retain, one.protected.patches) == (
        other.eraser,
        other.protected.retain,
        other.protected.patches,
    )
