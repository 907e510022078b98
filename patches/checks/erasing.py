"""Numbers that say beforehand whether an erasure erases: from embeddings and weights, without a picture.

A concept is the embeddings of its last token and a few positions after it, in plain prompts: X_c [d, n]. The unit is
what usually lies between two concepts that the model is to keep, m = median of ‖W(X_i − X_j)‖ over pairs of them;
norms are summed over the touched parameters. What all prompts share cancels in every difference.

    apart   ‖W(X_t − X_a)‖ / m          how far what the anchor draws is from what the target draws
    moved   ‖Δ X_t‖ / m                 how far the patch takes the target from where it was
    own     ‖Δ T‖ / ‖W(T − A)‖          the same for the very columns T that it was made for, of their way to what they
                                        become, A: tokens that a person chose may be fewer than those
    spread  ‖W(X_t − mean X_i)‖ / m     how far the target stands out: words that a model never learnt fall into parts
                                        that say little, and lie near the middle of all words

An anchor that is near its target is mapped to exactly (`residual` is small) and draws the target. A patch that hardly
moves its target leaves it where it was, however far the anchor is. What the numbers are worth stands in docs/gates.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch

FEWEST: Final = 4
"""Concepts that a unit needs at least."""
DOUBTFUL: Final = 0.18
"""Nearness from which on some pictures may show the target still."""
LEAST_SPREAD: Final = 0.52
"""Below, the word is probably one that the model never learnt."""
MUCH_LEAK: Final = 0.5
"""From here on what is kept is moved so far that some of it may be lost."""
HALF_WAY: Final = 0.6
"""Share of the way to its anchor that a target should be taken: below, some pictures may show it still."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of one erasure before anything is drawn; all in units of what lies between two kept concepts.

    Attributes:
        concept: what is erased.
        anchor: what it becomes; "" is nothing.
        apart: between target and anchor.
        moved: how far the patch takes the target; None where it touches layers that read something else than text.
        spread: between target and the middle of what is kept.
        own: which share of their way the patch takes the columns that it was made for; None as `moved`.
        leak: how far the patch moves what it is to keep, retained prompts or the null prompt, whichever farther: 1
            is as much as the base makes of it.
        elsewhere: the same as `own` in whichever further space of text it is the least; None where there is none.
        scaled: whether there is such a unit; else it is `apart` itself, and `spread` says nothing.
    """

    concept: str
    anchor: str
    apart: float
    moved: float | None
    spread: float
    own: float | None = None
    leak: float = 0.0
    scaled: bool = True
    elsewhere: float | None = None

    def moves_at_least(self, least: float) -> bool:
        """Whether the patch takes the target so far, or as far as its anchor is, if that is nearer.

        Else whether it takes its own columns that share of their way: then it does what was asked for. In
        further spaces of text, where nothing else is known, it has to.
        """
        if self.elsewhere is not None and self.elsewhere < least:
            return False
        if self.moved is None or self.moved >= min(least, self.apart):
            return True
        return self.own is not None and self.own >= least

    @property
    def short(self) -> bool:
        """Whether the patch takes the target a part of the way only."""
        return self.moved is not None and self.moved < HALF_WAY * self.apart

    @property
    def alike(self) -> float:
        """How near the anchor is to the target: 1 is the target itself, 0 as far as any other concept, or farther."""
        return max(0.0, 1.0 - self.apart)

    @property
    def known(self) -> bool:
        """Whether the target stands out as words do that the model learnt."""
        return self.spread >= LEAST_SPREAD


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What usually lies between the concepts of a model.

    Attributes:
        gram: Σ WᵀW of the touched parameters, [d, d] float64.
        middle: mean of the kept concepts' embeddings, [d, n].
        unit: median of ‖W(X_i − X_j)‖ over pairs of them, above 0.
    """

    gram: torch.Tensor
    middle: torch.Tensor
    unit: float

    @classmethod
    def of(cls, kept: Sequence[torch.Tensor], gram: torch.Tensor) -> Self | None:
        """The scale of some concepts [d, n] each; None where they are too few or all the same."""
        if len(kept) < FEWEST:
            return None
        sizes = [_size(gram, a - b) for i, a in enumerate(kept) for b in kept[:i]]  # each pair once
        # not the mean: a few odd words would stretch it
        unit = float(torch.tensor(sizes, dtype=torch.float64).median())
        # The middle is [d, n], position by position.
        return cls(gram, torch.stack(list(kept)).mean(0), unit) if unit > 0 else None

    @classmethod
    def between_two(cls, target: torch.Tensor, anchor: torch.Tensor, gram: torch.Tensor) -> Self | None:
        """The scale on which a concept and its anchor [d, n] are 1 apart; None where they are the same."""
        unit = _size(gram, target - anchor)
        return cls(gram, anchor, unit) if unit > 0 else None

    def between(self, one: torch.Tensor, other: torch.Tensor) -> float:
        """What lies between two concepts [d, n], in units."""
        return _size(self.gram, one - other) / self.unit

    def share(self, kernel: torch.Tensor, targets: torch.Tensor, anchors: torch.Tensor) -> float:
        """Which share of the way from `targets` to `anchors` [d, m] an increment with this kernel [k, d] moves them."""
        way = _size(self.gram, anchors - targets)
        return float((kernel @ targets).norm()) / way if way > 0 else 0.0

    def spread(self, concept: torch.Tensor) -> float:
        """How far a concept [d, n] stands out, in units."""
        return self.between(concept, self.middle)

    def moved(self, kernel: torch.Tensor, concept: torch.Tensor) -> float:
        """How far an increment with this kernel [k, d] takes a concept [d, n], in units."""
        return float((kernel @ concept).norm()) / self.unit  # [k, d] @ [d, n]: the kernel's Gram matrix is Σ ΔWᵀΔW


def _size(gram: torch.Tensor, columns: torch.Tensor) -> float:
    """‖W X‖ from WᵀW: root of tr(Xᵀ WᵀW X)."""
    # [d, n]: W [d_out, d] of all layers is never touched here. Rounding may go below 0.
    return math.sqrt(max(0.0, float((columns * (gram @ columns)).sum())))


def list_doubts(judgements: Iterable[Judgement]) -> list[str]:
    """What a person should hear before a patch is signed: words that the model hardly knows, anchors that are near."""
    said = []
    for found in judgements:
        if found.leak > MUCH_LEAK:
            said.append(
                f"the patch of {found.concept!r} moves what it is to keep by {found.leak:.2f} of what the base "
                f"makes of it (from {MUCH_LEAK:g} on some of it may be lost): look at pictures, rasura evaluate"
            )
        if found.short and found.moved is not None:
            goal = repr(found.anchor) if found.anchor else "nothing"
            said.append(
                f"the patch takes {found.concept!r} {found.moved / found.apart:.0%} of the way to {goal} (below "
                f"{HALF_WAY:.0%} pictures may show it still): look at pictures, rasura evaluate"
            )
        if not found.scaled:
            said.append(
                f"not judged whether {found.anchor!r} draws something else than {found.concept!r}: fewer than {FEWEST} "
                "concepts are kept, and they are the scale"
            )
            continue
        if not found.known:
            said.append(
                f"the model hardly knows {found.concept!r}: it stands out by {found.spread:.2f}, words that a model "
                f"has learnt by {LEAST_SPREAD:g} and more; if it is misspelt, nothing is erased"
            )
        if found.anchor and found.alike > DOUBTFUL:
            said.append(
                f"{found.anchor!r} is near {found.concept!r} ({found.alike:.2f}; from {DOUBTFUL:g} on pictures may "
                "show the target still): look at pictures, rasura evaluate"
            )
    return said
