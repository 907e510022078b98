"""UCE: ridge regression in which retained prompts are data (Unified Concept Editing, arXiv 2308.14761).

    ΔW_l = (W_l D) A        A = α C1ᵀ (α C1C1ᵀ + β C0C0ᵀ + λI)⁻¹

One detector A serves all layers, keys and values. Retained vectors C0 pull the edit towards nothing but do not forbid
it, so nothing is promised: what leaks is measured. Two versions are in use:

    2023    pairs from the last subject token to the end of the prompt; all 77 tokens of retained prompts, of which the
            empty one is always one; β = max(0.1, 1/m) for m of them. RECE builds on it
    2025    the last subject token alone, of retained prompts too; β = 1

Both erase the bare concept, `--template {}`, and take the start of text for an empty anchor's last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, Final, cast

import torch

from rasura.patches.algebra.protected_subspace import Moment, make_empty_basis
from rasura.patches.erasers.closed_form.least_squares import (
    NOTHING,
    apply_anchor,
    cut,
    gram,
    increments,
    join_columns,
    parts,
    solve_soft_detector,
)
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.prompts.concept_prompts import BARE
from rasura.patches.types import ParamName

_LEAST: Final = 0.1  # smallest β of the first version


class _ByVariant:
    """Defaults that follow an eraser's variant; those of the class are the 2025 ones."""

    def __get__(self, eraser: Uce | None, owner: type[Uce]) -> Defaults:
        tokens = "end" if eraser is not None and eraser.variant == "2023" else "last"
        return Defaults(
            tokens=tokens, layers="kv", rule="relative:1e-3", needs_retain=False, templates=BARE, names=True
        )


@dataclass(frozen=True, slots=True)
class Uce:
    """The method with its choices."""

    name: ClassVar[str] = "uce"
    defaults: ClassVar[Defaults] = cast("Defaults", _ByVariant())

    variant: str = option("2025", "which of the authors' versions", choices=("2023", "2025"))
    ridge: float = option(0.5, "λ, the weight of the edit's size", low=1e-9, high=1e9)
    erase: float = option(1.0, "α, the weight of the targets", low=1e-9, high=1e9)
    preserve: float = option(0.0, "β, the weight of retained tokens; 0: the version's own", low=0, high=1e9)
    nothing: str = option("start", "where an empty anchor is read from, with tokens last or end", choices=NOTHING)
    empty: str = option(
        "auto", "whether the empty prompt is retained; auto: in 2023", choices=("auto", "yes", "no"), before="no"
    )
    energy: float = option(1.0, "share of the targets' effect that the rank must carry", low=1e-9, high=1)
    rank_limit: int = option(76, "most detectors of one patch", low=1, high=1024)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """What reads text: `layers` is k, v or kv (cross-attention), or text (all of it, in any family)."""
        return find_cross_attention(infos, layers, width)

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """All concepts together: each gets the rows of A that its columns made."""
        problem.progress("solving", 0, 1)
        tokens_of = "all" if self.variant == "2023" else problem.request.tokens
        kept, tokens = sum_retained(problem, tokens_of, empty=self._keeps_empty)
        given = apply_anchor(problem) if self.nothing == "start" else problem.columns
        targets, change = join_columns(given)
        beta = self.preserve or self._preserve(tokens / problem.encoder.length)  # tokens counted as whole prompts
        # [N, d]: rows of all concepts
        A = solve_soft_detector(targets, kept, erase=self.erase, preserve=beta, ridge=self.ridge)
        weights = {name: weight.to(torch.float64) for name, weight in problem.weights.items()}
        outputs = cache(partial(gram, weights))  # [d, d]
        found = []
        for columns, own in zip(given, parts(given), strict=True):
            factors = cut(A[own], change[:, own], columns.targets, outputs, energy=self.energy, limit=self.rank_limit)
            found.append(solve_soft_erasure(weights, factors, columns, {"preserve": format(beta, ".6g")}))
        problem.progress("solving", 1, 1)
        return tuple(found)

    @property
    def _keeps_empty(self) -> bool:
        return self.variant == "2023" if self.empty == "auto" else self.empty == "yes"

    def _preserve(self, prompts: float) -> float:
        return max(_LEAST, 1 / max(prompts, 1)) if self.variant == "2023" else 1.0


def sum_retained(problem: Problem, tokens: str, *, empty: bool) -> tuple[torch.Tensor, int]:
    """Σ c0 c0ᵀ [d, d] over retained tokens and over the targets of guarded patches; and how many retained tokens.

    Args:
        problem: whose retain set.
        tokens: which of a prompt's.
        empty: the empty prompt is retained, too: all its tokens, or the start of text where the last one alone counts.
    """
    moment = Moment(int(problem.columns[0].targets.shape[0]))
    for batch in problem.retained(tokens):
        moment.add(batch)
    if empty:
        null = problem.reference.invariants  # [length, d]
        moment.add(null if tokens == "all" else null[:1])
    total = moment.mean * moment.count  # UCE weighs sums, not means
    for rows in problem.request.guarded.values():
        total = total + rows.T @ rows  # rows [m, d]
    return total, moment.count


def solve_soft_erasure(
    weights: Mapping[ParamName, torch.Tensor],
    factors: tuple[torch.Tensor, torch.Tensor],
    columns: Columns,
    facts: Mapping[str, str],
) -> Erasure:
    """An erasure with one detector for all layers that promises nothing."""
    made = increments(weights, dict.fromkeys(weights, factors))
    counted = {"columns": str(columns.pairs), **facts}
    return Erasure(made, 1.0, 0, basis=make_empty_basis(int(columns.targets.shape[0])), facts=counted)
