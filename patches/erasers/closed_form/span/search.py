"""What a map lets through: prompts of real words, and embeddings that no prompt need have.

    contexts    the concept's names with a word of the vocabulary beside them, which moves all embeddings behind it
    names       words that draw nearly what the concept draws: nearer to it than `alike` of the way to its anchor
    embeddings  those that give the edited projections back what the pristine ones made of the concept, looked for in
                the free space alone and no further out than real words lie (RECE, arXiv 2407.12383, eq. 9, with the
                covariance N of words in place of the identity):

        min_y  ‖W(I + M)(c + F y) − W c‖² + γκ yᵀN⁻¹y       κ makes both terms of one size

Every search is over a list that is fixed beforehand, so the same model and request find the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.erasers.closed_form.span.bounded import Map, Room
from rasura.patches.erasers.interface import Problem
from rasura.patches.errors import ConceptError
from rasura.patches.prompts.concept_prompts import Target, align_columns, prompts_of
from rasura.patches.types import ParamName

__all__ = [
    "Probe",
    "Words",
    "find_embeddings",
    "find_names",
    "gather_contexts",
    "gather_words",
    "measure_left",
    "measure_worst",
]

_AROUND: Final = ("a {{}} {word}", "{word} {{}}")
"""Where a word stands beside the concept."""
_PLAIN: Final = ("{}", "a {}", "a photo of a {}")
_POSITIONS: Final = 24
"""Positions that a probe is known by: the first of those that know the concept, and the rest evenly."""
_FLAT: Final = 1e-6
"""Share of the mean variance below which no word varies."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One prompt that may let the concept through.

    Attributes:
        prompt: as a person would type it.
        targets: its embeddings [d, k], so scaled that their squares stand for all of the prompt's.
        change: what is to be added to each, [d, k].
        count: how many positions they stand for.
    """

    prompt: str
    targets: torch.Tensor
    change: torch.Tensor
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """What words of the vocabulary look like that have nothing to do with the concept.

    Attributes:
        moment: of all their tokens.
        each: embeddings [d, k] of every word.
        names: the words.
    """

    moment: Moment
    each: tuple[torch.Tensor, ...]
    names: tuple[str, ...]


def gather_words(problem: Problem, words: Sequence[str], templates: Sequence[str]) -> Words:
    """Words in templates, as the text encoder gives them; words that do not fit are left out."""
    found = Moment(problem.encoder.width)
    each: list[torch.Tensor] = []
    names: list[str] = []
    fitting = [word for word in words if _fits(problem, word, templates)]
    pairs = ((prompt, word) for word in fitting for prompt in prompts_of(word, templates))
    for part, hidden in problem.encoder.encode_with(pairs):
        found.add(hidden)
        for row, (_, word) in zip(hidden, part, strict=True):
            if names and names[-1] == word:
                continue  # one prompt says enough of a single word
            names.append(word)
            each.append(row[_spread(row.shape[0])].T)
    return Words(found, tuple(each), tuple(names))


def measure_worst(
    made: Mapping[ParamName, Increment], weights: Mapping[ParamName, torch.Tensor], words: Words
) -> float:
    """‖ΔW x‖/‖W x‖ of the word that increments disturb the most; 0 where there are no words."""
    moved, present = torch.zeros(len(words.each)), torch.zeros(len(words.each))
    for name, increment in made.items():
        A, B = increment.A.to(torch.float64), increment.B.to(torch.float64)
        for i, columns in enumerate(words.each):
            moved[i] += float((B @ (A @ columns)).square().sum())
            present[i] += float((weights[name] @ columns).square().sum())
    return max((float((m / p) ** 0.5) for m, p in zip(moved, present, strict=True)), default=0.0)


def gather_contexts(problem: Problem, target: Target, words: Sequence[str]) -> tuple[Probe, ...]:
    """Every name of the concept with every word beside it."""
    found: list[Probe] = []
    for i, word in enumerate(words):
        problem.progress("reading what may stand beside it", i, len(words))
        for around in _AROUND:
            found += _probes(problem, target, around.format(word=word))
    problem.progress("reading what may stand beside it", len(words), len(words))
    return tuple(found)


def _probes(problem: Problem, target: Target, template: str) -> Iterator[Probe]:
    for name in target.spoken:
        try:
            targets, anchors = align_columns(
                problem.encoder, replace(target, concept=name, names=()), (template,), problem.request.tokens
            )
        except ConceptError:
            continue  # the word hides the name from the tokenizer, or the prompt is too long
        count = int(targets.shape[1])
        kept = _spread(count)
        scale = (count / len(kept)) ** 0.5
        yield Probe(template.replace("{}", name), targets[:, kept] * scale, (anchors - targets)[:, kept] * scale, count)


def find_names(problem: Problem, target: Target, words: Sequence[str], root: torch.Tensor, alike: float) -> list[str]:
    """Words of which the layers make nearly what they make of the concept.

    Args:
        problem: whose request names what is retained: none of that is a name.
        target: concept and anchor.
        words: of the vocabulary.
        root: G^½ [d, d].
        alike: how far a word may be from the concept, as a share of the anchor's distance.
    """
    own = replace(target, names=())
    asked = _distance(problem, own, root)
    found = []
    for word in words if alike > 0 and asked > 0 else ():
        try:
            if _distance(problem, Target(word, target.concept), root) <= alike * asked:
                found.append(word)
        except ConceptError:
            continue
    return found


def _distance(problem: Problem, pair: Target, root: torch.Tensor) -> float:
    """Root mean square of ‖W(c − c*)‖ over the positions of plain prompts."""
    targets, anchors = align_columns(problem.encoder, pair, _PLAIN, problem.request.tokens)
    return float((root @ (anchors - targets)).square().sum(0).mean().sqrt())


def measure_left(room: Room, found: Map, probe: Probe, response: float) -> float:
    """What a map leaves of the way to the anchor in one prompt: a root mean square over its positions.

    Args:
        room: of the concept.
        found: the map.
        probe: the prompt.
        response: the root mean square of ‖W D‖ over the concept's own columns: 1 is all of it.
    """
    left = room.root @ (probe.change - found.Q @ (found.A @ probe.targets))
    return float((left.square().sum() / probe.count).sqrt()) / response


def find_embeddings(
    room: Room, found: Map, targets: torch.Tensor, change: torch.Tensor, gamma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings that bring the concept back, and what is to be added to each.

    Args:
        room: of the concept; its words say how far embeddings vary.
        found: the map that they get around.
        targets: C [d, n].
        change: D = C* − C [d, n].
        gamma: γ: larger keeps them nearer to the concept.

    Returns:
        X and C* − X, [d, n] each.
    """
    edited = room.root + room.root @ found.Q @ found.A  # H(I + M)
    inner = edited @ room.free  # [d, f]
    stiff = torch.cholesky_inverse(torch.linalg.cholesky(_variance(room)))  # N⁻¹
    gram = inner.T @ inner
    weight = gamma * float(torch.trace(gram) / torch.trace(stiff))
    missing = room.root @ targets - edited @ targets  # what the map took away
    moved = torch.cholesky_solve(inner.T @ missing, torch.linalg.cholesky(gram + weight * stiff))  # y, [f, n]
    adversarial = targets + room.free @ moved
    return adversarial, targets + change - adversarial


def _variance(room: Room) -> torch.Tensor:
    """How embeddings of words vary in the free space, [f, f]; alike in all directions where there are no words."""
    size = room.free.shape[1]
    even = torch.eye(size, dtype=torch.float64)
    if "words" not in room.around:
        return even
    variance = room.free.T @ room.around["words"].mean @ room.free
    scale = float(torch.trace(variance)) / size
    return (variance + variance.T) / 2 + (_FLAT * scale or 1.0) * even


def _fits(problem: Problem, word: str, templates: Sequence[str]) -> bool:
    try:
        for prompt in prompts_of(word, templates):
            problem.encoder.ids(prompt)
    except ConceptError:
        return False
    return True


def _spread(count: int) -> list[int]:
    """At most `_POSITIONS` of so many positions: the first third as they come, the rest evenly."""
    if count <= _POSITIONS:
        return list(range(count))
    first = _POSITIONS // 3
    rest = _POSITIONS - first
    return [*range(first), *(first + i * (count - first) // rest for i in range(rest))]
