"""Across sites: patches of the text encoder move the embeddings that all other patches were made for. Encode again.

Whoever reads text embeddings (a *reader*) was solved for the pristine encoder. Where a stack also holds patches of the
encoder, its targets and retained prompts are encoded once more, through the patched encoder, and the checks are redone
with what comes out: T' for a target's columns, R' for retained prompts.

    site(q)           max(0, ρ' − ρ)             what the encoder's patches add to what the stack leaves of q's concept:
                      ρ = ‖(W + Σ_p Δ_p) T_q − W C*_q‖ ÷ ‖W (C*_q − T_q)‖; ρ' has T'_q for the first T_q
    moved-own(q)      max(0, λ' − λ)             what they add to q's leak on its retained prompts: λ = ‖Δ_q R‖ ÷ ‖W R‖
    moved-stack(q)    the same for Σ_p Δ_p
    moved-pair(p, q)  ‖Δ_p T'_q‖ ÷ ‖Δ_q T_q‖     q a reader
                      ‖Δ_p T'_q‖ ÷ ‖W (T'_q − T_q)‖   q of the encoder: what p does to what became of its concept

W are the base's weights, in the readers' parameters. Retained prompts are encoded anew too, so their words are needed;
of a patch whose words are not at hand only the null prompt is, and `unknown` names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.checks.across import Across, list_movers, list_readers, reads_across_sites
from rasura.patches.checks.kernels.footprint import Footprint, compact, share, spaces_of
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.relations import Promise, Relations
from rasura.patches.checks.verdict import CheckName, Relation
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.models.text_encoders.hidden_states import copy_encoder
from rasura.patches.models.text_encoders.load_encoder import put_back
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.types import ParamName, PatchId, Progress

_NOISE: Final = 1e-6
"""Relative singular value below which directions of a concept's columns do not count."""

Prompts = Callable[["Patch"], "Sequence[str] | None"]
"""The retained prompts of a patch; None where their words are not at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """The base that a stack is checked on.

    Attributes:
        encoder: its pristine text encoder, or encoders.
        originals: pristine values of the parameters that the stack touches, in the base's dtype.
        prompts: where the words of retain sets come from.
    """

    encoder: TextEncoder
    originals: Mapping[ParamName, torch.Tensor]
    prompts: Prompts


def check_encoder_effects(stack: Sequence[Member], policy: Policy, site: Site, progress: Progress) -> Across:
    """Redo the checks of a stack with embeddings from its patched text encoder.

    Args:
        stack: all patches; without a patch of the encoder, or without a reader, there is nothing to do.
        policy: the limits.
        site: the base.
        progress: told what is going on.

    Raises:
        ConceptError: the encoder does not read a prompt of a patch.
        NotFiniteError: the patched encoder gives NaN or infinity.
    """
    if not reads_across_sites(stack):
        return Across()
    readers, movers = list_readers(stack), list_movers(stack)
    moved = _patched(movers, site)  # a copy: the pristine encoder is needed beside it
    columns = {m.patch_id: _columns(m.patch, site.encoder, moved) for m in stack if m in readers or m in movers}
    prompts = {m.patch_id: site.prompts(m.patch) for m in readers}
    prints = [_at(Footprint.of(m.patch), columns[m.patch_id].moved) for m in readers]
    before, numbers = (
        Relations(readers, policy, prints=seen, promises=_promises(readers, prompts, encoder, site, progress))
        for seen, encoder in ((None, site.encoder), (prints, moved))
    )
    relations = [*_added(before, numbers), *(replace(r, check=CheckName.MOVED_PAIR) for r in numbers.pairs())]
    relations += _left(numbers, columns, movers, site)
    relations += _on_movers(readers, movers, columns, policy, site)
    return Across(tuple(relations), tuple(i for i, words in prompts.items() if words is None))


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """A concept's columns [d, n]: as the pristine encoder gives them, as the patched one does, and what they become."""

    stored: torch.Tensor
    moved: torch.Tensor
    anchors: torch.Tensor


def _patched(movers: Sequence[Member], site: Site) -> TextEncoder:
    layers = layers_of((m.patch.arrays.increments, m.strength) for m in movers)
    values = {layer.name: compose(site.originals[layer.name], layer.terms) for layer in layers}
    touched = {name.partition(".")[0] for name in values}
    # Copies of what is touched alone: a second encoder may be as large as the first.
    modules = {name: copy_encoder(module) for name, module in site.encoder.modules.items() if name in touched}
    for component, module in modules.items():
        put_back(module, values, component)
    return site.encoder.with_modules(modules)


def _columns(patch: Patch, pristine: TextEncoder, moved: TextEncoder) -> _Columns:
    """The three of them, in few columns: ‖X·stored − Y·moved − Z·anchors‖ stays the same for all X, Y, Z."""
    concept = patch.manifest.concept
    target = Target(concept.text, concept.anchor, concept.templates, patch.manifest.names)
    stored, anchors = align_columns(pristine, target, concept.templates, concept.tokens)  # [d, n] each
    # The anchor's are left as the pristine encoder gives them: those are what the patch was solved for.
    there, _ = align_columns(moved, target, concept.templates, concept.tokens)
    left, values, _ = torch.linalg.svd(torch.cat([stored, there, anchors]), full_matrices=False)  # [3d, n]
    kept = values > _NOISE * values[0]
    parts = (left[:, kept] * values[kept]).split(stored.shape[0])  # back into three of [d, k]
    return _Columns(*parts)


def _at(footprint: Footprint, targets: torch.Tensor) -> Footprint:
    """The same patch on other text columns."""
    return replace(footprint, targets={**footprint.targets, TEXT: targets.numpy()})


def _promises(
    readers: Sequence[Member],
    prompts: Mapping[PatchId, Sequence[str] | None],
    moved: TextEncoder,
    site: Site,
    progress: Progress,
) -> list[Promise]:
    """What each reader keeps, encoded again; once for those that keep the same."""
    known: dict[tuple[str, ...], torch.Tensor] = {}
    found = []
    for member in readers:
        words = tuple(prompts[member.patch_id] or ("",))  # without the words, the null prompt alone
        if words not in known:
            known[words] = _moment(words, moved, progress)
        names = spaces_of(member.patch)[TEXT]
        base = math.sqrt(sum(_energy(site.originals[name], known[words]) for name in names))
        found.append(_promise(words, names, known[words], base))
    return found


def _promise(words: tuple[str, ...], names: Sequence[ParamName], inputs: torch.Tensor, base: float) -> Promise:
    return Promise((words, tuple(names)), lambda space, _: inputs.numpy() if space == TEXT else None, base)


def _moment(prompts: Sequence[str], encoder: TextEncoder, progress: Progress) -> torch.Tensor:
    """A square root [d, k] of the mean of r·rᵀ over all tokens of the prompts."""
    moment, done = Moment(encoder.width), 0
    for hidden in encoder.encode(prompts):
        moment.add(hidden)
        done += hidden.shape[0]
        progress("encoding retained prompts again", done, len(prompts))
    values, vectors = torch.linalg.eigh(moment.mean)
    kept = values > 0
    root: torch.Tensor = vectors[:, kept] * values[kept].sqrt()  # root·rootᵀ is the mean
    return root


def _energy(weight: torch.Tensor, inputs: torch.Tensor) -> float:
    return float((weight.to(torch.float64) @ inputs).square().sum())


def _added(before: Relations, after: Relations) -> Iterator[Relation]:
    """How much more leaks on retained prompts once they are encoded by the patched encoder."""
    for check, numbers in ((CheckName.MOVED_OWN, Relations.own), (CheckName.MOVED_STACK, Relations.whole)):
        for old, new in zip(numbers(before), numbers(after), strict=True):
            if new.check is not CheckName.KEPT:
                yield Relation(check, new.patch, new.other, max(0.0, new.value - old.value), after.policy.stack)


def _left(
    numbers: Relations, columns: Mapping[PatchId, _Columns], movers: Sequence[Member], site: Site
) -> list[Relation]:
    """`site` of every reader, named after the encoder's patch that stands last."""
    found = []
    for member in numbers.stack:
        own = columns[member.patch_id]
        names = spaces_of(member.patch)[TEXT]
        asked = math.sqrt(sum(_energy(site.originals[name], own.anchors - own.stored) for name in names))
        before, after = (
            share(_distance(numbers.stack, names, inputs, own.anchors, site), asked)
            for inputs in (own.stored, own.moved)
        )
        value = max(0.0, after - before)
        found.append(Relation(CheckName.SITE, movers[-1].patch_id, member.patch_id, value, numbers.policy.site))
    return found


def _distance(
    readers: Sequence[Member],
    names: Sequence[ParamName],
    inputs: torch.Tensor,
    anchors: torch.Tensor,
    site: Site,
) -> float:
    """‖(W + Σ s_p Δ_p) X − W C*‖ over some parameters."""
    total = 0.0
    layers = {layer.name: layer for layer in layers_of((m.patch.arrays.increments, m.strength) for m in readers)}
    for name in names:
        result = site.originals[name].to(torch.float64) @ (inputs - anchors)  # [d_out, n]
        for term in layers[name].terms:
            A, B = term.increment.A.to(torch.float64), term.increment.B.to(torch.float64)
            result += B @ (A @ inputs) * term.strength.value
        total += float(result.square().sum())
    return math.sqrt(total)


def _on_movers(
    readers: Sequence[Member],
    movers: Sequence[Member],
    columns: Mapping[PatchId, _Columns],
    policy: Policy,
    site: Site,
) -> list[Relation]:
    """What each reader does to a concept that the encoder no longer gives as it was."""
    found = []
    for p in readers:
        kernel, names = torch.from_numpy(Footprint.of(p.patch).kernels[TEXT]), spaces_of(p.patch)[TEXT]
        for q in movers:
            if q is not p:
                own = columns[q.patch_id]
                disturbed = float((kernel @ own.moved).norm()) * abs(p.strength.value)
                shift = torch.from_numpy(compact((own.moved - own.stored).T.numpy())).T  # [d, ≤ d]
                effect = math.sqrt(sum(_energy(site.originals[name], shift) for name in names))
                value = share(disturbed, effect)
                found.append(Relation(CheckName.MOVED_PAIR, p.patch_id, q.patch_id, value, policy.pair))
    return found
