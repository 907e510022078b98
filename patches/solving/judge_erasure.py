"""Judging erasures before they are signed: does the anchor draw something else, and does the model know the word?

What is clear is refused, what is only doubtful is said. The numbers are those of `rasura.patches.checks.erasing`;
nothing of them goes into a manifest.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.erasing import DOUBTFUL, LEAST_SPREAD, Judgement, Scale
from rasura.patches.checks.kernels.footprint import Footprint, spaces_of
from rasura.patches.checks.policy import Policy
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.options import encode_options
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import ConceptError, ErasureRefusedError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.interface import Host
from rasura.patches.models.remembered_texts import recall
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.plain_numbers import say_beside, say_over
from rasura.patches.prompts.concept_prompts import AUTO, Target, prompts_of
from rasura.patches.prompts.nearest_anchor import GENERAL
from rasura.patches.prompts.nearest_concepts import find_nearest_protected
from rasura.patches.types import ParamName

_TEMPLATES: Final = ("{}", "a {}", "the {}", "{} style")
_POSITIONS: Final = 8
_COMPARED: Final = 32
"""Kept concepts that a scale is made of at most: 128 prompts."""
_OFFERED: Final = 3


@use_one_thread()
def judge_erasure(
    host: Host,
    encoder: TextEncoder,
    request: EraseRequest,
    patches: Sequence[Patch],
    policy: Policy,
    *,
    standing: Collection[str] = (),
) -> tuple[Judgement, ...]:
    """What each patch of a request will do, as far as stored numbers tell.

    Where too few concepts are kept to make a scale, only the share of its way that a patch takes its target is known.

    Args:
        host: the base model; read only.
        encoder: its text encoder.
        request: what was asked for.
        patches: what came of it, not yet signed.
        policy: its limit `alike` is the most that an anchor may be like its target, `moved` the least that a patch
            must take its target.
        standing: concepts that became this anchor before; they are judged, but not refused.

    Raises:
        ErasureRefusedError: an anchor that the model cannot tell from the target; better ones are named. A patch that
            leaves its target where it was, or destroys what it is to keep.
    """
    encoder = encoder.reading_for(request.layers)
    judge = Judge.of(host, encoder, request, [n for p in patches for n in spaces_of(p).get(TEXT, ())])
    found = tuple(judge.judged(patch) for patch in patches)
    for judgement, patch in zip(found, patches, strict=True):
        if judgement.concept in standing:
            continue
        # The null prompt is no concept: pictures of it show anything, and its distance says little of them.
        if judgement.anchor and judgement.known and judgement.alike > policy.alike:
            raise _refusal(judgement, judge, policy)
        if not judgement.moves_at_least(policy.moved):
            raise _too_little(judgement, patch.manifest, policy)
        if judgement.leak > policy.leak:
            raise _too_much(judgement, patch.manifest, policy)
    return found


@use_one_thread()
def choose_anchors(host: Host, encoder: TextEncoder, request: EraseRequest, policy: Policy) -> EraseRequest:
    """The request, with the nearest general concept that draws something else in place of every anchor `auto`.

    Where nothing can be measured, `auto` stays and is resolved by nearness alone.

    Raises:
        ErasureRefusedError: all general concepts draw the target.
    """
    if all(target.anchor != AUTO for target in request.targets):
        return request
    encoder = encoder.reading_for(request.layers)
    names = request.eraser.parameters(host.parameters(), request.layers, encoder.width)
    judge = Judge.of(host, encoder, request, [n for n in names if not n.startswith("text_encoder")])
    if judge.scale is None:
        return request
    targets = (judge.anchored(target, policy) if target.anchor == AUTO else target for target in request.targets)
    return replace(request, targets=tuple(targets))


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The scale of a request, and how its concepts are encoded.

    Attributes:
        gram: Σ WᵀW of the touched parameters, [d, d] float64.
        scale: of what is kept; None where that is too little.
        encoder: the text encoder, as the touched layers see it.
        encode: a concept's columns [d, n] float64; None where it does not fit.
        request: what was asked for.
        host: the base model.
    """

    gram: torch.Tensor
    scale: Scale | None
    encoder: TextEncoder
    encode: Callable[[str], torch.Tensor | None]
    request: EraseRequest
    host: Host

    @classmethod
    def of(cls, host: Host, encoder: TextEncoder, request: EraseRequest, names: Iterable[ParamName]) -> Judge:
        """The judge of a request whose patches touch these parameters."""
        seen: dict[str, torch.Tensor | None] = {}

        def encode(concept: str) -> torch.Tensor | None:
            if concept not in seen:
                seen[concept] = _columns(encoder, concept)
            return seen[concept]

        kept = [encode(concept) for concept in _kept(request)]
        gram = _gram(host.originals(sorted(set(names))), encoder.width)
        scale = Scale.of([columns for columns in kept if columns is not None], gram)
        return cls(gram, scale, encoder, encode, request, host)

    def judged(self, patch: Patch) -> Judgement:
        """The judgement of a patch; its concept and anchor were encoded before, when it was made."""
        concept = patch.manifest.concept
        kernel = Footprint.of(patch).kernels.get(TEXT)
        target, anchor = self.encode(concept.text), self.encode(concept.anchor)
        if target is None or anchor is None:  # too long for these templates: nothing speaks against it
            return Judgement(concept.text, concept.anchor, 1.0, None, 1.0)
        scale = self.scale or Scale.between_two(target, anchor, self.gram)
        apart, spread = (0.0, 0.0) if scale is None else (scale.between(target, anchor), scale.spread(target))
        leaks = [float(patch.manifest.measured.get(name, "0")) for name in ("leak_retained", "leak_null")]
        found = Judgement(
            concept.text, concept.anchor, apart, None, spread, leak=max(leaks), scaled=self.scale is not None
        )
        reading = len(spaces_of(patch).get(TEXT, ())) + len(patch.manifest.protected.spaces)
        if scale is None or kernel is None or reading < len(patch.arrays.increments):
            return found
        did, own = torch.from_numpy(kernel), patch.tensors
        share = scale.share(did, own.targets.T, own.anchors.T)
        return replace(found, moved=scale.moved(did, target), own=share, elsewhere=self._least_elsewhere(patch))

    def _least_elsewhere(self, patch: Patch) -> float | None:
        """‖Δ T‖ ÷ ‖W (A − T)‖ in the further space of text where the patch takes its columns T the least far."""
        shares, made = [], Footprint.of(patch)
        for space in sorted(set(patch.manifest.protected.spaces.values())):
            names = spaces_of(patch)[space]
            pairs, weights = patch.tensors.pairs_of(names[0]), self.host.originals(names)
            way = [weights[name].to(torch.float64) @ (pairs.anchors - pairs.targets).T for name in names]
            asked = sum(float(part.square().sum()) for part in way) ** 0.5
            did = torch.from_numpy(made.kernels[space]) @ pairs.targets.T
            shares.append(float(did.norm()) / asked if asked > 0 else 0.0)
        return min(shares, default=None)

    def better(self, concept: str, policy: Policy) -> list[tuple[str, float]]:
        """Anchors to offer a person, the nearest first, with how far they are: doubtful ones where no others are."""
        far = self._far(concept)
        safe = [pair for pair in far if 1 - pair[1] <= min(DOUBTFUL, policy.alike)]
        return safe or self.passing(concept, policy)

    def passing(self, concept: str, policy: Policy) -> list[tuple[str, float]]:
        """Anchors that draw something else as the policy has it, the nearest first, with how far they are."""
        return [pair for pair in self._far(concept) if 1 - pair[1] <= policy.alike]

    def _far(self, concept: str) -> list[tuple[str, float]]:
        """General concepts that the model knows, the nearest first, with how far they are; none without a scale."""
        if (scale := self.scale) is None:
            return []
        target = self.encode(concept)
        retain = self.request.retain
        words = self.request.anchors or (GENERAL if retain is None or retain.whole else retain.concepts)
        others: Sequence[str] = [word for word in words if normal(word) != normal(concept)]
        if len(others) > _COMPARED:
            nearest = find_nearest_protected(self.encoder, concept, others, {}, _COMPARED)
            others = [near.name for near in nearest]
        found = [(word, columns) for word in others if (columns := self.encode(word)) is not None]
        # Words that the model never learnt draw anything.
        found = [pair for pair in found if scale.spread(pair[1]) >= LEAST_SPREAD] or found
        far = [(word, scale.between(target, columns)) for word, columns in found] if target is not None else []
        return sorted(far, key=lambda pair: pair[1])

    def anchored(self, target: Target, policy: Policy) -> Target:
        """The target with the nearest of the general concepts that draws something else.

        Of methods that go farther than their anchor also a doubtful one: what an erasure moves of everything else grows
        with the way that it takes its concept (docs/crowded.md).

        Raises:
            ErasureRefusedError: none does.
        """
        own_names = {normal(name) for name in target.spoken}
        words = tuple(word for word in self.request.anchors or GENERAL if normal(word) not in own_names)
        own = replace(self, request=replace(self.request, anchors=words))
        choose = own.passing if self.request.eraser.defaults.near else own.better
        if found := choose(target.concept, policy):
            return replace(target, anchor=found[0][0])
        better = replace(self, request=replace(self.request, anchors=())).better(target.concept, policy)[:_OFFERED]
        raise ErasureRefusedError(
            f"none of {len(words)} general concepts draws something else than {target.concept!r}: expected one that is "
            f"alike at most {policy.alike:g}",
            hint=_hint(target.concept, better),
            concept=target.concept,
            anchors=[word for word, _ in better],
        )


def _refusal(judgement: Judgement, judge: Judge, policy: Policy) -> ErasureRefusedError:
    better = judge.better(judgement.concept, policy)[:_OFFERED]
    named = ", ".join(f"{word} ({max(0.0, 1 - apart):.2f})" for word, apart in better)
    return ErasureRefusedError(
        f"erasing {judgement.concept!r} to {judgement.anchor!r} erases little or nothing: the anchor is like the "
        f"target by {say_over(judgement.alike, policy.alike)}" + (f"; less alike: {named}" if named else ""),
        hint=_hint(judgement.concept, better),
        concept=judgement.concept,
        alike=f"{judgement.alike:.3f}",
        anchors=[word for word, _ in better],
    )


def _too_little(judgement: Judgement, made: Manifest, policy: Policy) -> ErasureRefusedError:
    """The refusal of a patch that leaves its target where it was, with the command that makes a better one."""
    concept, anchor = judgement.concept, judgement.anchor
    moved, least = say_beside(judgement.moved or 0.0, min(policy.moved, judgement.apart))
    coarser: dict[str, str] = {}
    if made.eraser.name == NullSpace.name and encode_options(NullSpace()).items() <= made.eraser.options.items():
        coarser["rule"] = str(RankRule.parse(made.protected.basis.rule).coarser)  # leaves the default more room
    rule = "".join(f" --rank-rule {rule}" for rule in coarser.values())
    how = f"it takes {concept!r} {moved} of what lies between two concepts"
    if judgement.elsewhere is not None and judgement.elsewhere < policy.moved:
        share, least = say_beside(judgement.elsewhere, policy.moved)
        how = f"in a further space that its layers read it takes {concept!r} {share} of its way"
    return ErasureRefusedError(
        f"the patch of {concept!r} ({made.eraser.name}) erases little or nothing: {how}, expected at least {least}",
        hint=f"{_hint(concept, [(anchor, 0.0)])}{rule}",
        concept=concept,
        anchor=anchor,
        moved=f"{judgement.moved:.3e}",
        **coarser,
    )


def _too_much(judgement: Judgement, made: Manifest, policy: Policy) -> ErasureRefusedError:
    """The refusal of a patch that moves what is to stay as far as it is, with the command of the default method."""
    concept, moved = judgement.concept, say_over(judgement.leak, policy.leak)
    return ErasureRefusedError(
        f"the patch of {concept!r} ({made.eraser.name}) destroys what it is to keep: it moves retained prompts or the "
        f"null prompt by {moved} of what the base makes of them",
        hint=_hint(concept, [(judgement.anchor, 0.0)]),
        concept=concept,
        anchor=judgement.anchor,
        moved=f"{judgement.moved or 0.0:.3e}",
        leak=f"{judgement.leak:.3e}",
    )


def _hint(concept: str, better: Sequence[tuple[str, float]]) -> str:
    anchor = shlex.quote(better[0][0]) if better else "TEXT"
    return f"rasura erase --base MODEL --concept {shlex.quote(concept)} --anchor {anchor} --retain FILE"


def _kept(request: EraseRequest) -> list[str]:
    """Concepts that a scale is made of: what is retained, evenly picked, or everyday words."""
    retain = request.retain
    words = request.held_out if retain is None or retain.whole else retain.concepts
    step = -(-len(words) // _COMPARED)
    return list(words[:: max(1, step)])


def _columns(encoder: TextEncoder, concept: str) -> torch.Tensor | None:
    """The concept's last token and those after it in plain prompts, [d, n] float64; None where it does not fit."""
    prompts = prompts_of(concept, _TEMPLATES)
    try:
        (found,) = recall(encoder, ("judge", *prompts), lambda: (_read(encoder, prompts, concept),))
    except ConceptError:
        return None
    return found


def _read(encoder: TextEncoder, prompts: Sequence[str], concept: str) -> torch.Tensor:
    hidden = encoder.encode_all(prompts)
    # Only now: some towers know where a phrase stands by having read the prompt.
    lasts = [encoder.subject(prompt, concept)[-1] for prompt in prompts]
    end = hidden.shape[1] - 1
    places = [[min(last + i, end) for i in range(_POSITIONS)] for last in lasts]
    return torch.cat([hidden[i, own] for i, own in enumerate(places)]).T


def _gram(weights: Mapping[ParamName, torch.Tensor], width: int) -> torch.Tensor:
    """Σ WᵀW, [d, d]; the identity where no touched parameter reads text embeddings."""
    total = torch.zeros(width, width, dtype=torch.float64)
    for weight in weights.values():
        wide = weight.to(torch.float64)
        total += wide.T @ wide
    return total if weights else torch.eye(width, dtype=torch.float64)
