"""All concepts together, each patch its share of one least-squares map that moves the rest as little as it can.

The null space of many concepts fills: what each leaves exactly alone takes dimensions, and in the few that are left an
erasure is long and moves everything that nobody named. Here only the null prompt is held exactly (and what a rank rule
asks for); everything else that should stay is data with a weight: the retained prompts, retained words and words of the
vocabulary in sentences that name two things (`sentences`), and the other concepts. The solution, and how each patch is
its concept's part of it, stands in `shares`. No dimension is used up, so a hundredth concept finds the room of the
first; what a patch moves of the others is small and not nothing, and held to what `pair` allows (`pairs`).

Ridge regression under-reaches where much should stay, and what is between an erased concept and its anchor often still
draws it; so every share is `reach` times what the least squares say.

Ridge regression with what is retained as data is UCE's (arXiv 2308.14761) and MEMIT's (arXiv 2210.07229), inside a null
space SPEED's (arXiv 2503.07392); nothing here is their code. Shares, sentences and reach are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.erasers.closed_form.joint.pairs import Factors, part_shares
from rasura.patches.erasers.closed_form.joint.sentences import list_contexts, list_sentences, pick_scattered
from rasura.patches.erasers.closed_form.joint.shares import LeastSquares, cut_share
from rasura.patches.erasers.closed_form.null_space import check_free, compute_gram_of, compute_roots, make_projector
from rasura.patches.erasers.closed_form.span.eraser import find_free
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.erasers.read_columns import read_columns
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import naming
from rasura.patches.prompts.vocabulary import list_words
from rasura.patches.types import ParamName

__all__ = ["Joint"]


@dataclass(frozen=True, slots=True)
class Joint:
    """The method with its choices."""

    name: ClassVar[str] = "joint"
    defaults: ClassVar[Defaults] = Defaults(tokens="tail", layers="v", rule="count:1", names=True, near=True)
    together: ClassVar[bool] = True
    """A takedown solves all patches of this method anew, even where none disturbs another."""

    keep: float = option(10.0, "weight of retained prompts beside one of each concept's", low=0, high=1e9)
    beside: float = option(
        10.0, "weight of sentences that name two things which stay", low=0, high=1e9, needs="sentences!=0"
    )
    sentences: int = option(8, "such sentences for each word that stays", low=0, high=256)
    words: int = option(64, "words of the vocabulary that stay besides", low=0, high=4096, needs="sentences!=0")
    contexts: int = option(24, "sentences in which each concept stands beside a word that stays", low=0, high=1024)
    reach: float = option(1.5, "how many times what the least squares say", low=0.1, high=4)
    ridge: float = option(1e-2, "softness λ as a share of the targets' mean free energy", low=1e-9, high=1e9)
    energy: float = option(0.98, "share of the targets' effect that the rank must carry", low=1e-9, high=1)
    pair: float = option(0.04, "most of another concept's effect that a patch may move", low=1e-6, high=1e9)
    rank_limit: int = option(32, "most detectors of one patch", low=1, high=1024)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """What reads text: `layers` is k, v or kv (cross-attention), or text (all of it, in any family)."""
        return find_cross_attention(infos, layers, width)

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """All concepts together, outside what the basis holds.

        Raises:
            ErasureRefusedError: a concept lies inside the protected set.
            BoundExceededError: a response too large for the grid.
        """
        basis = problem.basis()
        words = self._words(problem)
        concepts = [
            self._widen(problem, target, columns, words)
            for target, columns in zip(problem.request.targets, problem.columns, strict=True)
        ]
        free = find_free(make_projector(basis, [basis.rows[:0]], 0))  # [d, f]
        shares = [
            check_free(columns, basis.project(columns.targets), "the protected set", basis) for columns in concepts
        ]
        problem.progress("solving", 0, len(concepts))
        weights = {name: weight.to(torch.float64) for name, weight in problem.weights.items()}
        roots = compute_roots(compute_gram_of(weights))
        least = LeastSquares.of(free, concepts, self._sum_kept(problem, words), self.ridge)

        def solve(number: int, held: torch.Tensor | None) -> Factors:
            share, targets = self.reach * least.share(number, held), concepts[number].targets
            return cut_share(share, targets, roots, energy=self.energy, limit=self.rank_limit)

        named = [columns.targets for columns in problem.columns]  # what the composer asks about
        found = []
        parted = part_shares(solve, named, roots[0], free, self.pair)
        for number, (columns, share, factors) in enumerate(zip(concepts, shares, parted, strict=True), start=1):
            found.append(Erasure(_quantise(weights, factors, basis), share, 0, facts={"columns": str(columns.pairs)}))
            problem.progress("solving", number, len(concepts))
        return tuple(found)

    def _words(self, problem: Problem) -> tuple[str, ...]:
        """What stands in sentences: retained concepts, then words of the vocabulary that are none of the concepts."""
        request = problem.request
        erased = naming((*request.spoken, *request.unnamed))
        retained = request.retain.concepts if request.retain and not request.retain.whole else ()
        more = pick_scattered(list_words(problem.encoder, erased), self.words) if self.sentences and self.words else ()
        return tuple(dict.fromkeys(word for word in (*retained, *more) if not erased(word)))

    def _widen(self, problem: Problem, target: Target, columns: Columns, words: Sequence[str]) -> Columns:
        """The concept's columns with those of more sentences."""
        longest = max(target.spoken, key=len)
        contexts = list_contexts(problem.encoder, longest, words, self.contexts)
        if not contexts:
            return columns
        request = problem.request
        templates = tuple(dict.fromkeys((*request.templates_of(target), *contexts)))
        wide = replace(target, templates=templates)
        return read_columns(problem.encoder, wide, templates, request.tokens)

    def _sum_kept(self, problem: Problem, words: Sequence[str]) -> torch.Tensor:
        """K [d, d]: what should stay, by its weights."""
        total = self.keep * problem.reference.retained.mean
        if self.sentences and self.beside and len(words) > 1:
            request = problem.request
            erased = naming((*request.spoken, *request.unnamed))
            listed = list(list_sentences(problem.encoder, words, self.sentences, erased))
            total = total + self.beside * problem.moment(lambda: listed, "encoding sentences", len(listed)).mean
        return total


def _quantise(
    weights: Mapping[ParamName, torch.Tensor], factors: tuple[torch.Tensor, torch.Tensor], basis: ProtectedBasis
) -> dict[ParamName, Increment]:
    A, Q = factors
    A = basis.project(A.T).T  # once more: the solve costs a few digits
    return {name: Increment.quantised(A, weight @ Q) for name, weight in weights.items()}
