"""Null-space edits of the CLIP text encoder: what its feed-forward layers remember of a concept is rewritten.

After AlphaEdit (arXiv 2410.02355) as Om Prakash et al. use it on the text encoder of a diffusion model ("Editing
Concepts in Diffusion Models", 2025). In each chosen block, `fc2` maps keys (its inputs, at all 77 positions) to values.
The concept's keys K get new values; keys of the null prompt (start of text among them), of the retained prompts and of
the other concepts keep theirs, because the increment is zero on them (`alphaedit.rewrite`):

    ΔW = R KᵀP (K KᵀP + λI)⁻¹        R [d, m]: how the values are to change

Three ways to choose R, for the same keys:

    states   Y* − Y: what leaves the block becomes what leaves it for the anchor's prompt, residual stream included
    mapped   W K* − W K: `fc2` gives what it gives for the anchor; the stream past it still carries the concept
    guided   Adam on the values, so that the UNet predicts with the edited encoder what it predicts for the anchor

Blocks are edited in order, each on the encoder that carries the edits below it, starting from the pristine one: an edit
moves the keys of its own concept further up. Protected prompts keep theirs, up to the leak that the patch states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import make_empty_basis
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure, Problem
from rasura.patches.erasers.text_encoder.alphaedit import Keeping, Space, cut, spaces
from rasura.patches.erasers.text_encoder.choices import AUTO, Choices
from rasura.patches.erasers.text_encoder.edit import Edit
from rasura.patches.erasers.text_encoder.guided_values import guide
from rasura.patches.erasers.text_encoder.reach import reach
from rasura.patches.errors import InputError, UnsupportedHostError
from rasura.patches.format.protected_spec import HIDDEN
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.refuse_family import refuse_several_encoders
from rasura.patches.models.text_encoders.hidden_states import find_fc2_layers
from rasura.patches.types import ParamName

PAPER_LAYERS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class ClipNullSpace(Choices):
    """The method with its choices."""

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """`fc2` weights of the first text encoder: block numbers such as "1,2,3", or "auto".

        "auto" is the paper's choice 1,2,3 where the encoder has these blocks, else its last ones, three at most.
        """
        refuse_several_encoders(
            infos, f"method {self.name}", "rasura erase --base MODEL --concept TEXT --method null-space"
        )
        found = find_fc2_layers(infos)
        if not found:
            raise UnsupportedHostError(
                "the model has no CLIP text encoder: expected text_encoder.text_model.encoder.layers.N.mlp.fc2"
            )
        if odd := [name for name in found.values() if infos[name].shape[0] != width]:
            raise UnsupportedHostError(
                f"{odd[0]}: expected {width} outputs, got {infos[odd[0]].shape[0]}", parameter=odd[0]
            )
        return [found[number] for number in _chosen(layers, list(found), self.name)]

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """All concepts, block by block; see the module."""
        known = spaces(
            problem,
            Keeping(
                problem.request.rule if self.policy == "rule" else None,
                self.guard_share if self.guard == "span" else None,
                self.shared_p,
            ),
        )
        # each on a copy of its own
        edits = [Edit.of(problem, target, list(known), self.positions) for target in problem.request.targets]
        losses: list[dict[str, str]] = [{} for _ in edits]
        if self.values == "guided":
            losses = guide(problem, edits, known, self)
        else:
            self._closed(problem, edits, known)
        # Before anything is measured: `reach` looks at what the patch will hold, not at what was solved.
        stored = [self._stored(edit, known) for edit in edits]
        facts = [{**loss, **far} for loss, far in zip(losses, reach(problem, edits), strict=True)]
        width = problem.encoder.width
        return tuple(
            self._erasure(edit, known, increments, numbers, width)
            for edit, increments, numbers in zip(edits, stored, facts, strict=True)
        )

    def _closed(self, problem: Problem, edits: Sequence[Edit], known: Mapping[int, Space]) -> None:
        for done, space in enumerate(known.values()):
            problem.progress("solving", done, len(known))
            # All are read before any is written, so that within a layer the order of the concepts does not matter.
            seen = [edit.present(space.layer) for edit in edits]
            found = []
            for i, edit in enumerate(edits):
                goals, keys = edit.goals[space.layer], edit.columns(seen[i].keys)  # keys K [d_ff, m]
                if self.values == "states":
                    change = edit.goal_columns(goals.outputs) - edit.columns(seen[i].outputs)  # Y* − Y, [d, m]
                else:
                    change = space.weight @ (edit.goal_columns(goals.keys) - keys)  # W K* − W K, [d, m]
                found.append(self.rewritten(edit, space, self.room(edits, i, space), change, keys))
            for edit, delta in zip(edits, found, strict=True):
                edit.put(space, delta)
                edit.put(space, self._increment(edit, space).dense())  # what is above sees what is stored
        problem.progress("solving", len(known), len(known))

    def _increment(self, edit: Edit, space: Space) -> Increment:
        """A layer's ΔW as it is stored."""
        keys = edit.columns(edit.present(space.layer).keys)  # [d_ff, m]
        return Increment.quantised(*cut(edit.deltas[space.layer], keys, space.basis, self.energy, self.rank_limit))

    def _stored(self, edit: Edit, known: Mapping[int, Space]) -> dict[ParamName, Increment]:
        """All layers as they are stored; from now on the copy carries exactly these."""
        found = {}
        for space in known.values():
            found[space.name] = self._increment(edit, space)
            edit.put(space, found[space.name].dense())
        return found

    def _erasure(
        self,
        edit: Edit,
        known: Mapping[int, Space],
        increments: Mapping[ParamName, Increment],
        facts: Mapping[str, str],
        width: int,
    ) -> Erasure:
        return Erasure(
            _padded(increments),
            min(edit.free.values()),
            max(edit.guarded.values()),
            basis=make_empty_basis(width),
            bases={space.name: space.promise for space in known.values()},
            columns={space.name: self._columns(edit, space) for space in known.values()},
            references={space.name: space.reference for space in known.values()},
            reads={space.name: HIDDEN for space in known.values()},
            facts=facts,
        )

    def _columns(self, edit: Edit, space: Space) -> Columns:
        """The concept's keys as its edit leaves them, and keys whose values under W are those that it should have.

        These are the anchor's own where `fc2` alone is mapped. Elsewhere they stand for what leaves the block for the
        anchor's prompt: W K* = W K + (Y* − Y), with Y as it would be without this layer's increment.
        """
        seen, goals = edit.present(space.layer), edit.goals[space.layer]
        keys = edit.columns(seen.keys)
        if self.values == "mapped":
            return Columns(edit.target.concept, keys, edit.goal_columns(goals.keys))
        # Y holds this layer's own ΔW K already: it is taken out again. [d, m]
        change = edit.goal_columns(goals.outputs) - edit.columns(seen.outputs) + edit.deltas[space.layer] @ keys
        # W [d, d_ff] has more columns than rows: its pseudo-inverse [d_ff, d] gives the smallest of the keys that fit.
        return Columns(edit.target.concept, keys, keys + torch.linalg.pinv(space.weight) @ change)


def _chosen(layers: str, present: Sequence[int], method: str) -> list[int]:
    if layers == AUTO:
        return list(PAPER_LAYERS if set(PAPER_LAYERS) <= set(present) else present[-len(PAPER_LAYERS) :])
    words = layers.split(",")
    if not all(word.isdecimal() and int(word) in present for word in words) or len(set(words)) != len(words):
        raise InputError(
            f"layers {layers!r}: expected {AUTO}, or numbers among {', '.join(map(str, present))} with commas between",
            hint=f"rasura methods {method}",
        )
    return sorted(int(word) for word in words)


def _padded(increments: Mapping[ParamName, Increment]) -> dict[ParamName, Increment]:
    """One rank for all layers, as a LoRA file is read: rows and columns of zeros fill up."""
    rank = max(increment.rank for increment in increments.values())
    return {
        name: Increment(
            torch.nn.functional.pad(own.A, (0, 0, 0, rank - own.rank)),  # A [r, d_ff]: rows below
            torch.nn.functional.pad(own.B, (0, rank - own.rank)),  # B [d, r]: columns behind
        )
        for name, own in increments.items()
    }
