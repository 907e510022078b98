"""Does a stack keep its promises? Linear algebra on stored detectors, bases and targets; no model, no image.

For a patch p with increments Δ_p, targets T_p and protected rows U_p with energies E_p:

    own(p)      ‖Δ_p U_p √E_p‖ / ‖W U_p √E_p‖      what p leaks on what it promised not to touch
    pair(p, q)  ‖Δ_p T_q‖ / ‖Δ_q T_q‖              how much of q's work p disturbs; where both read text embeddings, or
                                                   both states inside the encoder
    stack(q)    ‖Σ_p Δ_p U_q √E_q‖ / ‖W U_q √E_q‖  what all of them together leak on q's protected set
    kept(p, q)  ‖U_q F_p‖ / ‖F_p‖                  how much of what p erases q had promised to keep; F_p is T_p without
                                                   what p itself protects and without the null prompt. Where that is
                                                   nearly all, p was made to end that promise, so `stack(q)` leaves p
                                                   out, and the relation is shown
    one-sided   pair(q, p) where p protects q's targets and q does not protect p's: taken out of the stack, p's concept
                                                   comes back as q alone leaves it, not as the base has it; shown
    bound       Σ_p |s_p||B_p||A_p|                 below 2⁸, or the sum would depend on its order

Norms are Frobenius norms summed over the touched parameters, each with targets and protected rows as it reads them.
Parameters that read picture features are left out: what a patch does there is measured, not proved (`measured_only`).
The base's own norms stand in the manifests.
Not here: bytes, signatures and trust (the caller verified them), and the host's weights (the caller compares them).
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rasura.patches.compose import layers_of, sum_bound
from rasura.patches.file import Patch
from rasura.patches.increment import SUM_LIMIT, Increment
from rasura.patches.names import ParamName, PatchId
from rasura.patches.policy import DEFAULT_POLICY, Policy
from rasura.patches.specs import IMAGE, TEXT
from rasura.patches.verdict import (
    SHORT,
    Accepted,
    Member,
    Reason,
    Refused,
    Relation,
    Verdict,
    require,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEFAULT_POLICY",
    "SHORT",
    "Accepted",
    "Member",
    "Policy",
    "Reason",
    "Refused",
    "Relation",
    "Verdict",
    "check",
    "energy",
    "measured_only",
    "require",
]


def check(stack: Sequence[Member], policy: Policy = DEFAULT_POLICY) -> Verdict:
    """Judge a stack from stored data alone. An empty stack is accepted: it is the base."""
    reasons = [*_structure(stack)]
    if reasons:
        return Refused((), tuple(reasons))
    pairs = tuple(_pairs(stack, policy))
    relations = (*_bounds(stack), *_own(stack, policy), *pairs, *_one_sided(stack, pairs), *_whole(stack, policy))
    broken = tuple(_reason(relation, stack) for relation in relations if not relation.holds)
    return Refused(relations, broken) if broken else Accepted(relations)


def _structure(stack: Sequence[Member]) -> Iterator[Reason]:
    ids = [member.patch_id for member in stack]
    for patch_id in sorted(i for i, times in Counter(ids).items() if times > 1):
        yield Reason(f"patch {patch_id[:SHORT]} stands twice in the stack", f"rasura patch check {_short(set(ids))}")
    for member in stack:
        for needed in member.patch.manifest.requires:
            if needed not in ids:
                yield Reason(
                    f"patch {member.patch_id[:SHORT]} requires patch {needed[:SHORT]}, which is not in the stack",
                    f"rasura patch apply {needed[:SHORT]} {member.patch_id[:SHORT]} --model DIR",
                )
    yield from _one_base(stack)


def _one_base(stack: Sequence[Member]) -> Iterator[Reason]:
    seen: dict[str, tuple[str, PatchId]] = {}
    for member in stack:
        base = member.patch.manifest.base
        parts = {"the text encoder": base.text_encoder, "the tokenizer": base.tokenizer}
        for name, sha256 in [*parts.items(), *((p.name, p.sha256) for p in base.parameters)]:
            digest, first = seen.setdefault(name, (sha256, member.patch_id))
            if digest != sha256:
                yield Reason(
                    f"patches {first[:SHORT]} and {member.patch_id[:SHORT]} were computed on different bases: "
                    f"{name} is {digest[:SHORT]}… for one, {sha256[:SHORT]}… for the other",
                    "rasura patch list",
                )
                return


def _bounds(stack: Sequence[Member]) -> Iterator[Relation]:
    layers = layers_of((member.patch.tensors.increments, member.strength) for member in stack)
    if layers:
        worst = max(sum_bound(layer.terms) for layer in layers)
        below = SUM_LIMIT * (1 - 2.0**-20)  # the sum must stay strictly below the limit
        yield Relation("bound", stack[-1].patch_id, stack[-1].patch_id, worst, below)


def _own(stack: Sequence[Member], policy: Policy) -> Iterator[Relation]:
    for member in stack:
        leak = _share(energy([member], _protected_by(member)), _base_protected(member))
        yield Relation("own", member.patch_id, member.patch_id, leak, policy.own * max(1.0, abs(member.strength.value)))


def _pairs(stack: Sequence[Member], policy: Policy) -> Iterator[Relation]:
    for q in stack:
        targets = _targets_of(q)
        effect = energy([Member(q.patch)], targets)
        for p in stack:
            if p is not q and _reads(p) & _reads(q):
                share = _share(energy([p], targets), effect)
                yield Relation("pair", p.patch_id, q.patch_id, share, policy.pair)


def _one_sided(stack: Sequence[Member], pairs: Sequence[Relation]) -> Iterator[Relation]:
    """Pairs of which one protects the other and is not protected by it."""
    shares = {(relation.patch, relation.other): relation.value for relation in pairs}
    for p in stack:
        for q in stack:
            share = shares.get((q.patch_id, p.patch_id))
            if share is not None and _guards(p, q) and not _guards(q, p):
                yield Relation("one-sided", q.patch_id, p.patch_id, share, math.inf)


def _reads(member: Member) -> set[str]:
    """Text embeddings, states inside the encoder, or both: effects in one are not measured in units of the other."""
    reads = member.patch.manifest.protected.reads
    return {reads.get(name, TEXT) for name in member.patch.tensors.increments} - {IMAGE}


def _guards(p: Member, q: Member) -> bool:
    """Whether p was made so that it leaves q's targets alone."""
    protected = p.patch.manifest.protected
    return q.patch_id in protected.patches or q.patch.manifest.concept.text in protected.concepts


def _whole(stack: Sequence[Member], policy: Policy) -> Iterator[Relation]:
    for q in stack:
        held = [p for p in stack if p is q or _kept(p, q) < policy.kept]
        for p in stack:
            if p not in held:
                yield Relation("kept", p.patch_id, q.patch_id, _kept(p, q), 1.0)
        leak = _share(energy(held, _protected_by(q)), _base_protected(q))
        yield Relation("stack", stack[-1].patch_id, q.patch_id, leak, policy.stack)


def _kept(p: Member, q: Member) -> float:
    """‖U_q F_p‖ / ‖F_p‖ over the rows in which q keeps prompts (guarded targets are no prompts), at most 1."""
    import torch

    own = p.patch.tensors.protected
    other = q.patch.tensors.protected[q.patch.tensors.energy > 0]
    free = p.patch.tensors.targets.T
    for rows in (own, q.patch.tensors.protected[: q.patch.manifest.protected.basis.invariants]):
        free = free - rows.T @ (rows @ free)
    size = float(torch.linalg.vector_norm(free))
    return min(1.0, float(torch.linalg.vector_norm(other @ free)) / size) if size > 0 else 0.0


Inputs = Callable[[ParamName, str], "torch.Tensor | None"]
"""From a parameter, and what it reads, to columns [d, m] float64; None where what it reads of something is unknown."""


def energy(stack: Sequence[Member], inputs: torch.Tensor | Inputs) -> float:
    """‖Σ_p s_p Δ_p X‖ summed over the touched parameters, for columns X [d, m] float64 (one a parameter)."""
    import torch

    reads = {name: what for member in stack for name, what in member.patch.manifest.protected.reads.items()}
    total = 0.0
    for layer in layers_of((member.patch.tensors.increments, member.strength) for member in stack):
        what = reads.get(layer.name, TEXT)
        columns = inputs if isinstance(inputs, torch.Tensor) else inputs(layer.name, what)
        if columns is None or what == IMAGE:
            continue
        moved = [_applied(term.increment, columns) * term.strength.value for term in layer.terms]
        total += float(torch.stack(moved).sum(0).square().sum())
    return float(total**0.5)


def measured_only(patch: Patch) -> tuple[ParamName, ...]:
    """The parameters of a patch for which nothing is promised that algebra could check, sorted."""
    reads, tensors = patch.manifest.protected.reads, patch.tensors
    bare = {name for name in tensors.increments if tensors.span_of(name).rows.shape[0] == 0}
    return tuple(sorted(bare | {name for name, what in reads.items() if what == IMAGE}))


def _targets_of(member: Member) -> Inputs:
    tensors = member.patch.tensors

    def targets(name: ParamName, what: str) -> torch.Tensor | None:
        return tensors.pairs_of(name).targets.T if what == TEXT or name in tensors.pairs else None

    return targets


def _protected_by(member: Member) -> Inputs:
    tensors = member.patch.tensors

    def protected(name: ParamName, what: str) -> torch.Tensor | None:
        span = tensors.span_of(name)
        return (span.rows * span.energy.sqrt()[:, None]).T if what == TEXT or name in tensors.spans else None

    return protected


def _applied(increment: Increment, columns: torch.Tensor) -> torch.Tensor:
    import torch

    return increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ columns)


def _base_protected(member: Member) -> float:
    measured: Mapping[str, str] = member.patch.manifest.measured
    return float(measured.get("base_protected", "0"))


def _share(changed: float, present: float) -> float:
    """A ratio that a missing or absurd denominator makes infinite, never small."""
    if present > 0:
        return changed / present
    return 0.0 if changed == 0 else float("inf")


def _reason(relation: Relation, stack: Sequence[Member]) -> Reason:
    concepts = {member.patch_id: member.patch.manifest.concept.text for member in stack}
    number = f"{relation.value:.3g}, limit {relation.limit:.3g}"
    p, q = (f"{i[:SHORT]} ({concepts[i]})" for i in (relation.patch, relation.other))
    match relation.check:
        case "own":
            again = _erase([concepts[relation.patch]])
            return Reason(f"patch {p} breaks its own promise: it leaks {number} on its protected set", again)
        case "pair":
            together = _erase([concepts[relation.patch], concepts[relation.other]])
            return Reason(f"patch {p} disturbs patch {q}: {number} of its effect", together)
        case "stack":
            return Reason(f"the stack leaks {number} on the protected set of patch {q}", _erase(concepts.values()))
        case _:
            weaker = f"rasura patch apply {_short(concepts)} --model DIR --strength 0.5"
            return Reason(f"the stack may reach {number}: float64 would round", weaker)


def _erase(concepts: Iterable[str]) -> str:
    """The command that solves these together; each once."""
    named = " ".join(f"--concept {shlex.quote(concept)}" for concept in dict.fromkeys(concepts))
    return f"rasura erase --base MODEL {named} --retain FILE"


def _short(ids: Iterable[PatchId]) -> str:
    return " ".join(sorted(i[:SHORT] for i in ids))
