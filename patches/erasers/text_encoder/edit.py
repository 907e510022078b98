"""One concept's edit of a text encoder while it is being made: its prompts, a copy that carries it, what it changed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import torch

from rasura.patches.algebra.protected_subspace import ProtectedBasis, build_guarded_basis
from rasura.patches.erasers.free_share import FREE_FLOOR, free_norm, say_free
from rasura.patches.erasers.interface import Problem
from rasura.patches.erasers.text_encoder.alphaedit import Space
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.models.text_encoders.clip_or_t5 import PhrasePosition
from rasura.patches.models.text_encoders.hidden_states import States, copy_encoder, set_weights, states_of
from rasura.patches.prompts.concept_prompts import Target, pair_positions, prompts_of

ALL: Final = "all"


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A concept and the copy of the encoder that carries its edit so far.

    Attributes:
        target: the concept.
        ids: its prompts [n, length].
        goal_ids: its anchor's prompts, in the same order.
        pairs: for each prompt, which position becomes which of the anchor's.
        starts: where the subject of each prompt begins.
        pristine: states of its prompts in the unpatched encoder, by layer.
        goals: states of its anchor's prompts in the unpatched encoder, by layer.
        model: a copy of the encoder with `deltas` in it.
        deltas: ΔW [d, d_ff] float64 of each layer so far.
        guarded: most dimensions that other concepts took, by layer.
        free: smallest share of the concept's energy that was free, by layer.
    """

    target: Target
    ids: torch.Tensor
    goal_ids: torch.Tensor
    pairs: tuple[tuple[tuple[int, int], ...], ...]
    starts: tuple[int, ...]
    pristine: Mapping[int, States]
    goals: Mapping[int, States]
    model: Any
    deltas: dict[int, torch.Tensor] = field(default_factory=dict)
    guarded: dict[int, int] = field(default_factory=dict)
    free: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, target: Target, layers: Sequence[int], positions: str) -> Self:
        """A fresh edit that changes nothing.

        Raises:
            ConceptError: a prompt that is too long, or a concept that its template hides.
        """
        encoder, templates = problem.encoder, problem.request.templates_of(target)
        sources, goals = prompts_of(target.concept, templates), prompts_of(target.anchor, templates)
        ids, goal_ids = encoder.batch(sources), encoder.batch(goals)  # [n, length] each
        own = [encoder.places(prompt, target.concept)[0] for prompt in sources]
        theirs = [encoder.places(prompt, target.anchor)[0] for prompt in goals]
        # which positions, as the eraser or the request says
        tokens = positions if positions == ALL else problem.request.tokens
        pairs = tuple(_pairs(a, b, tokens) for a, b in zip(own, theirs, strict=True))
        return cls(
            target,
            ids,
            goal_ids,
            pairs,
            tuple(place.subject[0] for place in own),
            states_of(encoder.module, ids, layers),
            states_of(encoder.module, goal_ids, layers),
            copy_encoder(encoder.module),
        )

    def columns(self, states: torch.Tensor, rows: Sequence[int] | None = None) -> torch.Tensor:
        """The chosen positions of its prompts' states [n, length, x] as columns [x, m]; `rows` tells which prompts."""
        pairs = self.pairs if rows is None else [self.pairs[row] for row in rows]
        return _picked(states, [[source for source, _ in pair] for pair in pairs])

    def goal_columns(self, states: torch.Tensor) -> torch.Tensor:
        """The positions that they become, of its anchor's states [n, length, x], as columns [x, m]."""
        return _picked(states, [[goal for _, goal in pair] for pair in self.pairs])

    def own(self) -> torch.Tensor:
        """Which of the columns know the concept: from its first token on. [m] bool."""
        return torch.tensor([a >= start for start, pair in zip(self.starts, self.pairs, strict=True) for a, _ in pair])

    def mask(self, rows: Sequence[int]) -> torch.Tensor:
        """Where the values of these prompts may change: chosen positions that know the concept. [n, length] bool."""
        found = torch.zeros(len(rows), self.ids.shape[1], dtype=torch.bool)
        for i, row in enumerate(rows):
            # What stands before the subject knows nothing of it: attention is causal, and these keys are every
            # prompt's.
            found[i, [a for a, _ in self.pairs[row] if a >= self.starts[row]]] = True
        return found

    def present(self, layer: int) -> States:
        """States of its prompts under the edit so far."""
        return states_of(self.model, self.ids, [layer])[layer]

    def put(self, space: Space, delta: torch.Tensor) -> None:
        """Let the copy carry this ΔW [d, d_ff] in a layer."""
        self.deltas[space.layer] = delta
        set_weights(self.model, {space.layer: space.weight + delta})

    def room(self, space: Space, others: Sequence[torch.Tensor], share: float) -> ProtectedBasis:
        """What this edit must not touch in a layer: the layer's own basis, and the other concepts' keys [m, d_ff].

        Raises:
            ErasureRefusedError: nothing is left.
        """
        basis = build_guarded_basis(space.basis, others, share) if others else space.basis  # [rank, d_ff]
        self.guarded[space.layer] = max(self.guarded.get(space.layer, 0), basis.rank - space.basis.rank)
        return basis

    def check_free(self, space: Space, basis: ProtectedBasis, coarser: str) -> None:
        """Refuse a concept whose keys the basis holds; the hint ends in the option that leaves more room.

        Raises:
            ErasureRefusedError: less than `FREE_FLOOR` of them is free.
        """
        # Of columns that know the concept alone: the template's words lie inside of what is protected in any case.
        # [d_ff, ≤ m]
        known = self.columns(self.pristine[space.layer].keys)[:, self.own()]
        share = free_norm(known, basis)
        if share < FREE_FLOOR:
            raise ErasureRefusedError(
                f"concept {self.target.concept!r} lies inside the protected set of layer {space.layer}: "
                f"{say_free(share)}",
                hint=f"rasura erase --base MODEL --concept {shlex.quote(self.target.concept)} --retain FILE "
                f"--method clip-null-space {coarser}",
                concept=self.target.concept,
                free=f"{share:.3e}",
            )
        self.free[space.layer] = min(self.free.get(space.layer, 1.0), share**2)  # of energy, where `share` is of norms


def others_of(edits: Sequence[Edit], own: int, layer: int) -> list[torch.Tensor]:
    """Keys [m, d_ff] of the other concepts of a request in a layer: as the base has them, and as their edits do."""
    found = []
    for i, edit in enumerate(edits):
        if i != own:
            keys = [edit.pristine[layer].keys]  # [n, length, d_ff] each
            if any(below < layer for below in edit.deltas):  # an edit further down moves the keys
                keys.append(edit.present(layer).keys)
            found.append(torch.cat(keys).flatten(0, 1))  # [m, d_ff]
    return found


def _pairs(source: PhrasePosition, goal: PhrasePosition, tokens: str) -> tuple[tuple[int, int], ...]:
    if tokens != ALL:
        return tuple(pair_positions(source, goal, tokens))
    own, length = source.subject, source.stop
    last, end = own[-1], goal.subject[-1]
    before = [(position, position) for position in range(own[0])]  # the template's own words, the same in both
    # End-of-text and pads, which know the concept, too. Behind a longer anchor fewer are left: its last one stands for
    # the missing.
    after = [(last + j, min(end + j, length - 1)) for j in range(1, length - last)]
    return (*before, *pair_positions(source, goal, "subject"), *after)


def _picked(states: torch.Tensor, positions: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.cat([states[i, list(chosen)] for i, chosen in enumerate(positions)]).T.contiguous()  # [x, m]
