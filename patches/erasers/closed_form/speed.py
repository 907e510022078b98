"""SPEED: null-space erasure with a refined retain set and exactly kept invariants (arXiv 2503.07392).

For every layer W (or for all of them as one, `shared=yes`):

(1) the retained vectors that an unguarded erasure would move are kept (IPF), and noisy copies along the direction that
    W feels the least are added (DPA); see `speed_refinement`;
(2) P projects onto the directions in which their second moment stays below the request's rank rule, and which no
    guarded patch takes;
(3) C2 = start of text and centres of the null prompt (IEC); see `invariants`;
(4) ΔW = (W D) A is the minimiser of ‖(W + ΔW P)C1 − W C*‖² + λ‖ΔW P‖² with ΔW P C2 = 0.

Its detector, in n × n form. For the hard constraint, (4) is the same problem within the part of P that is orthogonal to
P C2, so with P' the projector onto it

    A = (λI + C1ᵀP'C1)⁻¹ C1ᵀP'

and for a soft one, with A0 the same under P and S = P(λI + P C1C1ᵀ P)⁻¹P,

    S X = (PX − A0ᵀ C1ᵀPX) / λ        A = A0 − A0C2 (C2ᵀSC2 + μI)⁻¹ (SC2)ᵀ

All concepts are solved together; each gets the rows of A that its columns made. The patch promises the complement of P'
per layer, or that of P where the constraint is soft.

The paper and the authors' code disagree in places; `mode` takes one or the other, and every place has an option. The
code averages the moments over the concepts, whatever their columns, which for n of them is a ridge of n·λ; and it
erases the bare concept, so `mode=code` without templates means `{}` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import ClassVar, cast

import torch

from rasura.patches.algebra.protected_subspace import ProtectedBasis, build_guarded_basis
from rasura.patches.erasers.closed_form.least_squares import (
    STARTS,
    apply_anchor,
    compute_free_shares,
    cut,
    gram,
    join_columns,
    parts,
    quantise_all,
)
from rasura.patches.erasers.closed_form.rece_adversarial import search_adversarial
from rasura.patches.erasers.closed_form.speed_invariants import compute_invariant_columns
from rasura.patches.erasers.closed_form.speed_prior_shift import Choices, Direction, Group, find_directions, shifts
from rasura.patches.erasers.closed_form.speed_projector import detect, protect
from rasura.patches.erasers.closed_form.speed_refinement import Refined, ReplayableBatches, refine
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.errors import InputError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.prompts.concept_prompts import BARE, TOKEN_CHOICES
from rasura.patches.types import ParamName


class _ByMode:
    """Defaults that follow an eraser's mode; those of the class are the paper's."""

    def __get__(self, eraser: Speed | None, owner: type[Speed]) -> Defaults:
        found = Defaults(tokens="last", layers="v", rule="absolute:0.1", needs_retain=False, names=True)
        return replace(found, templates=BARE) if eraser is not None and eraser.mode == "code" else found


@dataclass(frozen=True, slots=True)
class Speed:
    """The method with its choices."""

    name: ClassVar[str] = "speed"
    defaults: ClassVar[Defaults] = cast("Defaults", _ByMode())

    mode: str = option("paper", "whose version, where the paper and its code disagree", choices=("paper", "code"))
    moments: str = option(
        "auto", "moments summed; mean: over n concepts, a ridge of n·λ", choices=("auto", "sum", "mean")
    )
    shift: str = option(
        "auto",
        "prior shifts as compared with their mean",
        choices=("auto", "squared", "plain"),
        needs="ipf=yes or aug!=0",
    )
    filter: str = option(
        "auto", "over what noisy copies are averaged; chunk: 128", choices=("auto", "global", "chunk"), needs="aug!=0"
    )
    direction: str = option(
        "auto", "decomposition of the noise's direction", choices=("auto", "full", "reduced"), needs="aug!=0"
    )
    tied: str = option("auto", "whether aug 0 switches the filter off too", choices=("auto", "yes", "no"))
    nothing: str = option(
        "auto", "where an empty anchor is read from, with tokens last or end", choices=("auto", "end", "start")
    )
    ridge: float = option(1.0, "λ, the weight of the edit's size", low=0, high=1e9)
    ipf: bool = option(default=True, text="keep only retained vectors that the erasure would move")
    alpha: float = option(1.0, "factor on the mean that a shift must pass", low=0, high=1e6, needs="ipf=yes or aug!=0")
    aug: int = option(10, "noisy copies of each kept vector", low=0, high=1000)
    iec: bool = option(default=True, text="keep the null prompt's start and centres")
    lamb: float = option(0.0, "softness of that; 0: exactly", low=0, high=1e9, needs="iec=yes")
    centroids: int = option(3, "centres of the null prompt", low=0, high=76, needs="iec=yes")
    kept: str = option(
        "same", "tokens of retained prompts; same: as the targets'", choices=("same", *TOKEN_CHOICES, "all")
    )
    shared: bool = option(default=False, text="one detector for all layers")
    adversarial: int = option(0, "rounds in which embeddings that bring a concept back are erased too", low=0, high=20)
    gamma: float = option(0.1, "how small those embeddings must be", low=1e-9, high=1e9, needs="adversarial!=0")
    energy: float = option(1.0, "share of the targets' effect that the rank must carry", low=1e-9, high=1)
    rank_limit: int = option(76, "most detectors of one patch", low=1, high=1024)
    guard: float = option(1.0, "share of guarded patches' free energy that stays untouched", low=1e-9, high=1)
    seed: int = option(0, "of the noise and the centres", low=0, high=2**53 - 1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.lamb > 0 and self.ridge == 0:
            raise InputError("method speed: lamb above 0 expected a ridge above 0, got 0", hint="--set ridge=1")

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """What reads text: `layers` is k, v or kv (cross-attention), or text (all of it, in any family)."""
        return find_cross_attention(infos, layers, width)

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """All concepts together, layer by layer."""
        if self.nothing == "start" and problem.request.tokens not in STARTS:
            raise InputError(
                f"method speed: option nothing=start does nothing with tokens {problem.request.tokens}: expected "
                f"{' or '.join(STARTS)}",
                hint="--tokens last",
            )
        given = apply_anchor(problem) if self.is_code(self.nothing, "start") else problem.columns
        weights = {name: weight.to(torch.float64) for name, weight in problem.weights.items()}  # [o_l, d]
        retained = ReplayableBatches(lambda: self._retained(problem))
        directions = find_directions(_groups(self, weights), self.choices)  # the same in every round
        solution = _solve(self, problem, weights, given, retained, directions=directions)
        for epoch in range(self.adversarial):
            problem.progress("erasing what brings it back", epoch, self.adversarial)
            more = _with_adversarial(given, solution, weights, self.gamma)
            solution = _solve(self, problem, weights, more, retained, directions=directions)
        return _erasures(self, weights, solution)

    def is_code(self, choice: str, code: str) -> bool:
        """Whether a choice, or the mode where it is `auto`, says what the authors' code does."""
        return self.mode == "code" if choice == "auto" else choice == code

    @property
    def choices(self) -> Choices:
        """How retained vectors are refined."""
        off = self.aug == 0 and self.is_code(self.tied, "yes")
        return Choices(
            ipf=self.ipf and not off,
            alpha=self.alpha,
            squared=not self.is_code(self.shift, "plain"),
            aug=self.aug,
            chunked=self.is_code(self.filter, "chunk"),
            reduced=self.is_code(self.direction, "reduced"),
            seed=self.seed,
        )

    def weight(self, concepts: Sequence[Columns]) -> float:
        """κ, by which sums over the columns count: 1, or one over the number of concepts."""
        return 1 / len(concepts) if self.is_code(self.moments, "mean") else 1.0

    def _retained(self, problem: Problem) -> Iterator[torch.Tensor]:
        """Retained vectors; where there are none, the null prompt's tokens after the first."""
        tokens = problem.request.tokens if self.kept == "same" else self.kept
        empty = True
        for batch in problem.retained(tokens):
            empty = empty and batch.shape[0] == 0
            yield batch
        if empty:
            yield problem.reference.invariants[1:]


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """The solution of one group of layers.

    Attributes:
        names: the group.
        A: detectors of all concepts [N, d].
        basis: what they do not see.
        refined: the retained vectors behind it.
        free: the share of each concept's energy outside the basis.
    """

    names: tuple[ParamName, ...]
    A: torch.Tensor
    basis: ProtectedBasis
    refined: Refined
    free: Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """The columns that were solved together, and every group's detectors."""

    columns: tuple[Columns, ...]
    layers: tuple[_Layer, ...]


def _groups(options: Speed, weights: Group) -> list[Group]:
    """The layers that get a detector together."""
    return [weights] if options.shared else [{name: weight} for name, weight in weights.items()]


def _solve(
    options: Speed,
    problem: Problem,
    weights: Group,
    columns: tuple[Columns, ...],
    retained: ReplayableBatches,
    *,
    directions: Sequence[Direction] | None = None,
) -> _Solution:
    groups = _groups(options, weights)
    targets, change = join_columns(columns)  # [d, N] each
    choices, weight = options.choices, options.weight(columns)
    problem.progress("refining the retain set", 0, 1)
    prior = shifts(groups, targets, change, weight, choices, directions=directions)
    refined = refine(retained, prior, choices)
    null = compute_invariant_columns(problem.reference.invariants, options.centroids, options.seed)
    if not options.iec:
        null = null[:, :0]  # no column: the null prompt is not held
    layers = []
    for i, (group, own) in enumerate(zip(groups, refined, strict=True)):
        problem.progress("solving", i, len(groups))
        basis = protect(own, null, options.lamb, problem.request.rule)
        # registered patches, which SPEED does not know
        basis = build_guarded_basis(basis, problem.request.guarded.values(), options.guard)
        free = compute_free_shares(problem.columns, basis)  # refuses a concept that lies inside what is protected
        A = detect(targets, basis, null, options.ridge / weight, options.lamb * weight)
        layers.append(_Layer(tuple(group), A, basis, own, free))
    problem.progress("solving", len(groups), len(groups))
    return _Solution(columns, tuple(layers))


def _with_adversarial(
    given: tuple[Columns, ...], solution: _Solution, weights: Group, gamma: float
) -> tuple[Columns, ...]:
    """The columns so far, and those that bring the given ones back through the edited weights."""
    _, change = join_columns(solution.columns)
    edited = {
        # W (I + D A)
        name: weights[name] @ (_eye(change) + change @ layer.A)
        for layer in solution.layers
        for name in layer.names
    }
    return tuple(
        Columns(
            so_far.name,
            torch.cat([so_far.targets, search_adversarial(weights, edited, first.targets, gamma)], dim=1),
            torch.cat([so_far.anchors, first.anchors], dim=1),
            so_far.pairs + first.pairs,
        )
        for first, so_far in zip(given, solution.columns, strict=True)
    )


def _eye(like: torch.Tensor) -> torch.Tensor:
    return torch.eye(like.shape[0], dtype=torch.float64)


def _erasures(options: Speed, weights: Group, solution: _Solution) -> tuple[Erasure, ...]:
    """Each concept's rows of every group's detectors, with what the group promises."""
    outputs = [cache(partial(gram, {name: weights[name] for name in layer.names})) for layer in solution.layers]
    # the emptiest stands for all; layers with another one bring it along
    shown = min(solution.layers, key=lambda layer: layer.basis.rank).basis
    bases = {name: layer.basis for layer in solution.layers for name in layer.names if layer.basis is not shown}
    found = []
    for columns, own in zip(solution.columns, parts(solution.columns), strict=True):
        change = columns.anchors - columns.targets
        factors: dict[ParamName, tuple[torch.Tensor, torch.Tensor]] = {}
        for layer, output in zip(solution.layers, outputs, strict=True):
            both = cut(layer.A[own], change, columns.targets, output, energy=options.energy, limit=options.rank_limit)
            factors |= dict.fromkeys(layer.names, both)
        found.append(factors)
    room = [min(shares) for shares in zip(*(layer.free for layer in solution.layers), strict=True)]  # the least
    return tuple(
        Erasure(made, free, 0, basis=shown, bases=bases, facts=_facts(solution, columns))
        for made, free, columns in zip(quantise_all(weights, found), room, solution.columns, strict=True)
    )


def _facts(solution: _Solution, columns: Columns) -> dict[str, str]:
    """Numbers of the manifest: of all concepts solved together, and means over the groups of layers."""
    layers = solution.layers
    counts = {
        "columns": float(columns.pairs),
        "joint_concepts": float(len(solution.columns)),
        "joint_columns": float(sum(other.pairs for other in solution.columns)),
        "retained_vectors": float(layers[0].refined.seen),
        "kept_vectors": sum(layer.refined.kept for layer in layers) / len(layers),
        "added_vectors": sum(layer.refined.added for layer in layers) / len(layers),
        "free_dimensions": float(min(layer.basis.width - layer.basis.rank for layer in layers)),
    }
    return {name: format(value, ".6g") for name, value in counts.items()}
