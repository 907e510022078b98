"""RECE: erase, look for the embeddings that bring the concept back, erase those too (arXiv 2407.12383).

(1) a UCE step maps the targets to their anchors (`uce`, version 2023, the empty prompt retained);
(2) each epoch finds, for all tokens of the concept's prompts, the embeddings c' that the edited projections W' turn
    into what the pristine ones made of c (`adversarial`), and maps them to the null prompt's tokens (or the anchor's)
    by another UCE step on W', in which the null prompt is what is retained, once for each concept.

The steps of all layers share their detectors, so with M_e = D_e A_e the edited weights are W (I + M_0)(I + M_1) …, and

    ΔW_l = W_l Σ_e Q_e A_e        Q_e = (I + M_0) … (I + M_{e-1}) D_e

is a sum of factors whose order matters while it is made and not afterwards. It is reduced to its rank. Nothing is
promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch

from rasura.patches.algebra.protected_subspace import EXACT
from rasura.patches.erasers.closed_form.least_squares import (
    NOTHING,
    apply_anchor,
    cut,
    gram,
    join_columns,
    parts,
    solve_soft_detector,
)
from rasura.patches.erasers.closed_form.rece_adversarial import search_adversarial
from rasura.patches.erasers.closed_form.uce import solve_soft_erasure, sum_retained
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import BARE, Target, prompts_of
from rasura.patches.types import ParamName


@dataclass(frozen=True, slots=True)
class Rece:
    """The method with its choices."""

    name: ClassVar[str] = "rece"
    defaults: ClassVar[Defaults] = Defaults(
        tokens="end", layers="kv", rule="relative:1e-3", needs_retain=False, templates=BARE, names=True
    )

    epochs: int = option(1, "rounds against what brings the concept back; 0: UCE alone", low=0, high=50)
    gamma: float = option(
        0.1,
        "γ, how small those embeddings must be; larger erases less (published: 0.1, and 1e-3 for styles)",
        low=1e-9,
        high=1e9,
        needs="epochs!=0",
    )
    ridge: float = option(0.1, "λ of those rounds", low=1e-9, high=1e9, needs="epochs!=0")
    preserve: float = option(
        0.1, "β of those rounds, the weight of what is retained", low=0, high=1e9, needs="epochs!=0"
    )
    retain: str = option(
        "null",
        "what those rounds retain: the null prompt, or the set too",
        choices=("null", "set"),
        needs="epochs!=0",
    )
    towards: str = option(
        "null",
        "what those embeddings become: the null prompt, or the anchor",
        choices=("null", "anchor"),
        needs="epochs!=0",
        before="null",
    )
    nothing: str = option("start", "where an empty anchor is read from", choices=NOTHING, before="end")
    empty: bool = option(default=True, text="the empty prompt is retained", before=False)
    erase: float = option(1.0, "α, the weight of the targets", low=1e-9, high=1e9)
    first_ridge: float = option(0.5, "λ of the first step", low=1e-9, high=1e9)
    first_preserve: float = option(0.0, "β of the first step; 0: max(0.1, 1/m) for m prompts", low=0, high=1e9)
    tolerance: float = option(1e-9, "share of the largest singular value below which rank is rounding", low=0, high=1)
    energy: float = option(1.0, "share of the effect that the rank must carry", low=1e-9, high=1)
    rank_limit: int = option(1024, "most detectors of one patch", low=1, high=1024)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """What reads text: `layers` is k, v or kv (cross-attention), or text (all of it, in any family)."""
        return find_cross_attention(infos, layers, width)

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """All concepts together, epoch after epoch; each gets the factors that its columns made."""
        weights = {name: weight.to(torch.float64) for name, weight in problem.weights.items()}
        null = problem.reference.invariants  # [77, d]
        given = apply_anchor(problem) if self.nothing == "start" else problem.columns
        kept, tokens = sum_retained(problem, "all", empty=self.empty)
        beta = self.first_preserve or max(0.1, 1 / max(tokens / problem.encoder.length, 1))
        run = Run(weights, given)
        run.step(given, kept, alpha=self.erase, beta=beta, ridge=self.first_ridge)
        # the authors list the empty prompt once a concept, and so does this sum
        against = len(given) * null.T @ null + (kept if self.retain == "set" else torch.zeros_like(kept))  # [d, d]
        whole = [self._whole_prompts(problem, target) for target in problem.request.targets] if self.epochs else []
        for epoch in range(self.epochs):
            problem.progress("erasing what brings it back", epoch, self.epochs)
            run.step(
                run.bringing_back(whole, self.gamma), against, alpha=self.erase, beta=self.preserve, ridge=self.ridge
            )
        problem.progress("erasing what brings it back", self.epochs, self.epochs)
        outputs = cache(partial(gram, weights))
        return tuple(self._erasure(run, i, outputs) for i in range(len(given)))

    def _whole_prompts(self, problem: Problem, target: Target) -> Columns:
        """All tokens of the concept's prompts, each with the token of the same position that it is to become."""
        templates = problem.request.templates_of(target)
        prompts = [prompt for name in target.spoken for prompt in prompts_of(name, templates)]
        hidden = problem.encoder.encode_all(prompts)  # [n, length, d]
        if self.towards == "anchor" and normal(target.anchor):
            wanted = problem.encoder.encode_all(prompts_of(target.anchor, templates))
            wanted = wanted.repeat(len(target.spoken), 1, 1)  # [n, length, d]
        else:
            wanted = problem.reference.invariants.expand_as(hidden)
        width = hidden.shape[-1]
        columns = Columns(target.concept, hidden.reshape(-1, width).T, wanted.reshape(-1, width).T)
        return compress_columns(columns, EXACT) if columns.pairs > 2 * width else columns  # 2d columns say as much

    def _erasure(self, run: Run, concept: int, outputs: Callable[[], torch.Tensor]) -> Erasure:
        A, Q = run.factors(concept)
        seen = run.seen(concept)
        factors = cut(A, Q, seen, outputs, energy=self.energy, limit=self.rank_limit, tolerance=self.tolerance)
        return solve_soft_erasure(run.weights, factors, run.columns[concept], {"epochs": str(self.epochs)})


class Run:
    """Weights that are edited step after step: W_l F, with F [d, d] the same for all layers."""

    def __init__(self, weights: Mapping[ParamName, torch.Tensor], columns: Sequence[Columns]) -> None:
        self.weights, self.columns = weights, tuple(columns)
        self._F = torch.eye(columns[0].targets.shape[0], dtype=torch.float64)
        self._A: list[list[torch.Tensor]] = [[] for _ in columns]
        self._Q: list[list[torch.Tensor]] = [[] for _ in columns]
        self._seen: list[list[torch.Tensor]] = [[] for _ in columns]

    @property
    def edited(self) -> dict[ParamName, torch.Tensor]:
        """W_l after the steps so far."""
        return {name: weight @ self._F for name, weight in self.weights.items()}

    def step(self, concepts: Sequence[Columns], kept: torch.Tensor, *, alpha: float, beta: float, ridge: float) -> None:
        """One UCE step on the edited weights.

        Args:
            concepts: targets and anchors of this step, one for each concept.
            kept: Σ c0 c0ᵀ [d, d].
            alpha: weight of the targets.
            beta: weight of what is kept.
            ridge: λ.
        """
        targets, change = join_columns(concepts)
        A, Q = (
            solve_soft_detector(targets, kept, erase=alpha, preserve=beta, ridge=ridge),
            self._F @ change,
        )  # [N, d], [d, N]
        for i, own in enumerate(parts(concepts)):
            self._A[i].append(A[own])
            self._Q[i].append(Q[:, own])
            self._seen[i].append(targets[:, own])
        self._F = self._F + Q @ A  # only now: all concepts of a step start from the same weights

    def bringing_back(self, concepts: Sequence[Columns], gamma: float) -> list[Columns]:
        """Columns whose targets do to the edited weights what the given ones did to the pristine."""
        targets, _ = join_columns(concepts)
        found = search_adversarial(self.weights, self.edited, targets, gamma)
        return [
            Columns(columns.name, found[:, own], columns.anchors, columns.pairs)
            for columns, own in zip(concepts, parts(concepts), strict=True)
        ]

    def factors(self, concept: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A [n, d] and Q [d, n] of all steps of a concept."""
        return torch.cat(self._A[concept]), torch.cat(self._Q[concept], dim=1)

    def seen(self, concept: int) -> torch.Tensor:
        """All targets of a concept's steps, [d, n]."""
        return torch.cat(self._seen[concept], dim=1)
