"""Erase the span of how a concept is spoken of, under a bound on what else is disturbed.

Named prompts do not bound what an erasure lets through: a word behind the prompt moves every embedding after it, and a
detector that was fitted to plain prompts no longer fires. So the targets are many: all names of the concept (synonyms,
translations, descriptive names) in all templates at all positions that know them, and, round by round, what a search
finds that the map so far lets through (`search`): prompts with real words of the vocabulary beside the name,
words that draw nearly the same, and embeddings in closed form that give the edited layers the concept back (RECE).
Every map of a round is the one that takes the most from all of these together while

    ‖ΔW x‖ / ‖W x‖ ≤ collateral

over words of the vocabulary and over what is retained (`bounded`), inside the space that is free of everything
protected. The rounds end where nothing that was looked at leaves more than `left` of the concept's response, or where
nothing more comes of them; the rank is the smallest that leaves so little. So the patch is separable as a null-space
patch is: one detector for all layers, orthogonal to what is protected.

After: SPEED (arXiv 2503.07392) for the null space, RECE (arXiv 2407.12383) for the rounds, UCE (arXiv 2308.14761) for
ridge regression with others as data. That many ways of speaking are to be erased together is also said by Diversified
Unlearning (arXiv 2603.18767) and TICoE (arXiv 2604.15829), and a subspace in place of a point by SuMa (arXiv
2509.05625); nothing here is their code or their formula. The bound, and real words found in closed form, are ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import EXACT, Moment, find_leading
from rasura.patches.erasers.closed_form.null_space import (
    Projector,
    check_free,
    compute_gram_of,
    compute_roots,
    make_projector,
)
from rasura.patches.erasers.closed_form.span.bounded import Map, Room, cut_map, measure_disturbance
from rasura.patches.erasers.closed_form.span.rounds import Limits, Run, compute_left, run_rounds
from rasura.patches.erasers.closed_form.span.search import (
    Probe,
    Words,
    find_names,
    gather_contexts,
    gather_words,
    measure_left,
    measure_worst,
)
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.prompts.retain_set import naming
from rasura.patches.prompts.vocabulary import list_words, pick_evenly
from rasura.patches.types import ParamName

_USELESS: Final = 0.9
"""Share of a concept's own response that an erasure may leave at most and still be called one."""
_TEMPLATES: Final = 4
"""Templates in which words of the vocabulary stand at most."""
_SHORTER: Final = 1.0 - 2.0**-16


@dataclass(frozen=True, slots=True)
class Span:
    """The method with its choices."""

    name: ClassVar[str] = "span"
    defaults: ClassVar[Defaults] = Defaults(tokens="tail", layers="kv", rule="relative:1e-3", names=True)

    collateral: float = option(
        0.1, "the largest ‖ΔW x‖/‖W x‖ over words of the vocabulary and over what is retained", low=1e-6, high=1
    )
    left: float = option(
        0.1, "share of the concept's response that may be left: rounds and rank go on until it is", low=1e-6, high=1
    )
    rounds: int = option(
        4, "searches for what the erasure lets through, each followed by a new solution", low=0, high=50
    )
    words: int = option(
        128, "words of the vocabulary that are tried beside the concept, and as many others that bound the damage",
        low=2, high=4096,
    )  # fmt: skip
    found: int = option(16, "prompts of the search that each round adds at most", low=0, high=4096, needs="rounds!=0")
    embeddings: bool = option(
        default=True, text="each round adds embeddings that bring the concept back, too", needs="rounds!=0"
    )
    gamma: float = option(
        1.0, "γ, how near to the concept those embeddings stay", low=1e-9, high=1e9, needs="embeddings=yes"
    )
    alike: float = option(
        0.0, "words this near to the concept, of the way to its anchor, become names of it; 0: none", low=0, high=1
    )
    ridge: float = option(1e-3, "softness λ as a share of the mean squared free target norm", low=0, high=1 - 1e-9)
    rank_limit: int = option(64, "most detectors of one patch", low=1, high=1024)
    guard: float = option(0.9999, "share of each other concept's free energy that stays untouched", low=1e-9, high=1)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """What reads text: `layers` is k, v or kv (cross-attention), or text (all of it, in any family)."""
        return find_cross_attention(infos, layers, width)

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """Each concept by itself, inside what is free of everything protected and of the other concepts."""
        basis = problem.basis()
        weights = {name: weight.to(torch.float64) for name, weight in problem.weights.items()}
        roots = compute_roots(compute_gram_of(weights))
        vocabulary = list_words(problem.encoder, naming(problem.request.spoken))
        tried = pick_evenly(vocabulary, self.words, start=1)
        words = gather_words(problem, pick_evenly(vocabulary, self.words), problem.request.all_templates[:_TEMPLATES])
        around = _around(problem, words)
        spoken = [
            self._spoken(problem, target, columns, tried, roots[0])
            for target, columns in zip(problem.request.targets, problem.columns, strict=True)
        ]
        free = [basis.project(columns.targets) for _, columns in spoken]
        for (_, columns), part in zip(spoken, free, strict=True):
            check_free(columns, part, "the protected set", basis)
        guards = [find_leading(part, self.guard) for part in free]  # what the others must leave alone
        found = []
        for i, (target, columns) in enumerate(spoken):
            project = make_projector(basis, guards, i)
            where = "the span of the other concepts of this request"
            share = check_free(columns, project(columns.targets), where, basis)
            room = Room(find_free(project), *roots, around)
            contexts = gather_contexts(problem, target, tried)
            run = run_rounds(room, columns, contexts, self._limits)
            problem.progress("cutting to the rank", i, len(spoken))
            made, facts = self._finish(weights, room, run, contexts)
            facts["collateral_worst"] = f"{measure_worst(made, weights, words):.3e}"
            found.append(Erasure(made, share, int(project.guard.shape[0]), facts=facts))
        return tuple(found)

    @property
    def _limits(self) -> Limits:
        return Limits(self.collateral, self.left, self.rounds, self.found, self.embeddings, self.gamma, self.ridge)

    def _spoken(
        self, problem: Problem, target: Target, columns: Columns, words: Sequence[str], root: torch.Tensor
    ) -> tuple[Target, Columns]:
        """The concept with the words that are names of it, and the columns of both."""
        retain = problem.request.retain
        kept = naming(retain.concepts) if retain else naming(())
        names = find_names(problem, target, [word for word in words if not kept(word)], root, self.alike)
        if not names:
            return target, columns
        more = replace(target, names=(*target.names, *names))
        templates = problem.request.templates_of(target)
        targets, anchors = align_columns(problem.encoder, more, templates, problem.request.tokens)
        joined = Columns(columns.name, targets, anchors)
        return more, compress_columns(joined, EXACT) if targets.shape[1] > 2 * targets.shape[0] else joined

    def _finish(
        self,
        weights: Mapping[ParamName, torch.Tensor],
        room: Room,
        run: Run,
        contexts: Sequence[Probe],
    ) -> tuple[dict[ParamName, Increment], dict[str, str]]:
        """The rounds' map with as few detectors as it needs, on the grid, within the bound; and its numbers."""
        cut = cut_map(room, run.found, run.targets, run.change, left=self.left, limit=self.rank_limit)
        A, Q = (cut.A @ room.free) @ room.free.T, cut.Q  # once more: the solve costs a few digits
        while True:
            made = {name: Increment.quantised(A, weight @ Q) for name, weight in weights.items()}
            collateral = measure_disturbance(made, weights, room.around)
            if collateral <= self.collateral:
                break
            # Rounding to the grid moved it a little past; where it would again, this ends all the same.
            Q = Q * min(self.collateral / collateral, _SHORTER)
        final = Map(A, Q, collateral)
        own = run.columns
        left = compute_left(room, final, own.targets, own.anchors - own.targets)
        if left > _USELESS:
            raise ErasureRefusedError(
                f"within a collateral of {self.collateral:g} nothing of {own.name!r} can be erased: {left:.0%} of "
                f"its response is left, expected at most {_USELESS:.0%}",
                hint=f"rasura erase --method span --set collateral={min(1.0, 4 * self.collateral):g} --base MODEL "
                f"--concept {shlex.quote(own.name)} --retain FILE",
                concept=own.name,
                left=f"{left:.3e}",
            )
        worst = max((measure_left(room, final, probe, run.response) for probe in contexts), default=left)
        return made, {
            "columns": str(own.pairs),
            "found": str(run.probes),
            "rounds": str(len(run.trail)),
            "left": f"{left:.3e}",
            "left_worst": f"{worst:.3e}",
            "collateral": f"{collateral:.3e}",
        }


def find_free(project: Projector) -> torch.Tensor:
    """An orthonormal basis F [d, f] of what a projector leaves."""
    taken = torch.cat([project.basis.rows, project.guard])  # [k, d], orthonormal
    width = taken.shape[1]
    if not taken.shape[0]:
        return torch.eye(width, dtype=torch.float64)
    left, _, _ = torch.linalg.svd(taken.T, full_matrices=True)  # [d, d]; the columns behind the k first are free
    return project(left[:, taken.shape[0] :])


def _around(problem: Problem, words: Words) -> dict[str, Moment]:
    """What may be disturbed: words, and what is retained, where there is any."""
    found = {"words": words.moment, "retained": problem.reference.retained}
    return {name: moment for name, moment in found.items() if moment.count}
