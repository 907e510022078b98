"""Does a stack keep its promises? Linear algebra on stored detectors, bases and targets; no model, no image.

For a patch p with increments Δ_p, targets T_p and protected rows U_p with energies E_p:

    own(p)      ‖Δ_p U_p √E_p‖ / ‖W U_p √E_p‖      what p leaks on what it promised not to touch
    pair(p, q)  ‖Δ_p T_q‖ / ‖Δ_q T_q‖              how much of q's work p disturbs
    stack(q)    ‖Σ_p Δ_p U_q √E_q‖ / ‖W U_q √E_q‖  what all of them together leak on q's protected set
    bound       Σ_p |s_p||B_p||A_p|                 below 2⁸, or the sum would depend on its order

Norms are Frobenius norms summed over the touched projections. The base's own norms stand in the manifests.
Not here: bytes, signatures and trust (the caller verified them), and the host's weights (the caller compares them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from rasura.patches.compose import layers_of, sum_bound
from rasura.patches.errors import CheckRefusedError
from rasura.patches.file import Patch
from rasura.patches.increment import ONE, SUM_LIMIT, Increment, Strength
from rasura.patches.names import ParamName, PatchId

if TYPE_CHECKING:
    import torch

SHORT: Final = 12  # digits of an id in a sentence


@dataclass(frozen=True, slots=True)
class Member:
    """A patch of a stack, at a strength."""

    patch: Patch
    strength: Strength = ONE

    @property
    def patch_id(self) -> PatchId:
        """The patch's identity."""
        return self.patch.patch_id


@dataclass(frozen=True, slots=True)
class Policy:
    """Named limits. A relation may be at most its limit.

    Attributes:
        own: most leak of a patch on its own protected set.
        pair: most share of another patch's effect that a patch may disturb.
        stack: most leak of the whole stack on any protected set.
    """

    own: float = 1e-3
    pair: float = 0.05
    stack: float = 0.02


DEFAULT_POLICY: Final = Policy()


@dataclass(frozen=True, slots=True)
class Relation:
    """One measured number.

    Attributes:
        check: "own", "pair", "stack" or "bound".
        patch: whose increment.
        other: whose targets or protected set; equal to `patch` for "own".
        value: the ratio.
        limit: what the policy allows.
    """

    check: str
    patch: PatchId
    other: PatchId
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the value is within its limit."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a stack is refused: a sentence with the number and the limit, and the command that would resolve it."""

    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every relation holds."""

    relations: tuple[Relation, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Some relation does not hold; nothing may be applied."""

    relations: tuple[Relation, ...]
    reasons: tuple[Reason, ...] = field(default=())


Verdict: TypeAlias = Accepted | Refused


def check(stack: Sequence[Member], policy: Policy = DEFAULT_POLICY) -> Verdict:
    """Judge a stack from stored data alone. An empty stack is accepted: it is the base."""
    reasons = [*_structure(stack)]
    if reasons:
        return Refused((), tuple(reasons))
    relations = (*_bounds(stack), *_own(stack, policy), *_pairs(stack, policy), *_whole(stack, policy))
    broken = tuple(_reason(relation, stack) for relation in relations if not relation.holds)
    return Refused(relations, broken) if broken else Accepted(relations)


def require(verdict: Verdict) -> Accepted:
    """The verdict, if it is Accepted.

    Raises:
        CheckRefusedError: with every reason.
    """
    if isinstance(verdict, Refused):
        first = verdict.reasons[0]
        raise CheckRefusedError(
            "; ".join(reason.text for reason in verdict.reasons),
            hint=first.hint,
            reasons=[reason.text for reason in verdict.reasons],
        )
    return verdict


def _structure(stack: Sequence[Member]) -> Iterator[Reason]:
    ids = [member.patch_id for member in stack]
    for patch_id in sorted({i for i in ids if ids.count(i) > 1}):
        yield Reason(f"patch {patch_id[:SHORT]} stands twice in the stack")
    for member in stack:
        for needed in member.patch.manifest.requires:
            if needed not in ids:
                yield Reason(
                    f"patch {member.patch_id[:SHORT]} requires patch {needed[:SHORT]}, which is not in the stack",
                    f"rasura patch apply {needed[:SHORT]} {member.patch_id[:SHORT]}",
                )
    yield from _one_base(stack)


def _one_base(stack: Sequence[Member]) -> Iterator[Reason]:
    seen: dict[ParamName, tuple[str, PatchId]] = {}
    for member in stack:
        base = member.patch.manifest.base
        for parameter in base.parameters:
            digest, first = seen.setdefault(parameter.name, (parameter.sha256, member.patch_id))
            if digest != parameter.sha256:
                yield Reason(
                    f"patches {first[:SHORT]} and {member.patch_id[:SHORT]} were computed on different bases: "
                    f"{parameter.name} is {digest[:SHORT]}… for one, {parameter.sha256[:SHORT]}… for the other",
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
        leak = energy([member], _protected(member)) / _base(member, "base_protected")
        yield Relation("own", member.patch_id, member.patch_id, leak, policy.own * max(1.0, abs(member.strength.value)))


def _pairs(stack: Sequence[Member], policy: Policy) -> Iterator[Relation]:
    for q in stack:
        targets = q.patch.tensors.targets.T
        effect = energy([Member(q.patch)], targets)
        for p in stack:
            if p is not q:
                share = energy([p], targets) / effect if effect > 0 else float("inf")
                yield Relation("pair", p.patch_id, q.patch_id, share, policy.pair)


def _whole(stack: Sequence[Member], policy: Policy) -> Iterator[Relation]:
    for q in stack:
        leak = energy(stack, _protected(q)) / _base(q, "base_protected")
        yield Relation("stack", stack[-1].patch_id, q.patch_id, leak, policy.stack)


def energy(stack: Sequence[Member], columns: torch.Tensor) -> float:
    """‖Σ_p s_p Δ_p X‖ summed over the touched projections, for columns X [d, m] float64."""
    import torch

    total = 0.0
    for layer in layers_of((member.patch.tensors.increments, member.strength) for member in stack):
        moved = [_applied(term.increment, columns) * term.strength.value for term in layer.terms]
        total += float(torch.stack(moved).sum(0).square().sum())
    return float(total**0.5)


def _applied(increment: Increment, columns: torch.Tensor) -> torch.Tensor:
    import torch

    return increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ columns)


def _protected(member: Member) -> torch.Tensor:
    tensors = member.patch.tensors
    return (tensors.protected * tensors.energy.sqrt()[:, None]).T


def _base(member: Member, name: str) -> float:
    measured: Mapping[str, str] = member.patch.manifest.measured
    return float(measured.get(name, "0")) or float("inf")


def _reason(relation: Relation, stack: Sequence[Member]) -> Reason:
    named = {member.patch_id: f"{member.patch_id[:SHORT]} ({member.patch.manifest.concept.text})" for member in stack}
    number = f"{relation.value:.3g}, limit {relation.limit:.3g}"
    p, q = named[relation.patch], named[relation.other]
    concepts = [member.patch.manifest.concept.text for member in stack]
    match relation.check:
        case "own":
            return Reason(f"patch {p} breaks its own promise: it leaks {number} on its protected set", "rasura erase …")
        case "pair":
            together = " ".join(f"--concept {concept!r}" for concept in concepts)
            return Reason(
                f"patch {p} disturbs patch {q}: {number} of its effect",
                f"erase them together: rasura erase {together} …",
            )
        case "stack":
            return Reason(f"the stack leaks {number} on the protected set of patch {q}", "apply fewer patches")
        case _:
            return Reason(f"the stack may reach {number}: float64 would round", "apply fewer patches")
