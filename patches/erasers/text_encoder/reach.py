"""How far edits of the text encoder reach: what the UNet will read, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rasura.patches.erasers.interface import Problem
from rasura.patches.erasers.text_encoder.edit import Edit
from rasura.patches.models.text_encoders.hidden_states import embed_tokens
from rasura.patches.models.text_encoders.text_encoder import BATCH

SAMPLE: Final = 256
"""Most prompts that are encoded anew; evenly spaced ones stand for more."""


def reach(problem: Problem, edits: Sequence[Edit]) -> list[dict[str, str]]:
    """Ratios of Frobenius norms of the encoder's output under each edit alone, as decimals.

    embedding_residual: ‖c' − c*‖ / ‖c − c*‖ on the concept's chosen positions; 0: nothing of the concept is left.
    embedding_retained: ‖c' − c‖ / ‖c‖ on retained prompts, all positions.
    embedding_held_out: the same on prompts that nobody retained.
    """
    request = problem.request
    retained = _moved(problem, edits, _sample(tuple(request.retained_prompts())))
    held_out = _moved(problem, edits, _sample(tuple(request.held_out_prompts())))
    return [
        {
            "embedding_residual": f"{_residual(problem, edit):.3e}",
            "embedding_retained": f"{kept:.3e}",
            "embedding_held_out": f"{held:.3e}",
        }
        for edit, kept, held in zip(edits, retained, held_out, strict=True)
    ]


def _residual(problem: Problem, edit: Edit) -> float:
    model = problem.encoder.module
    wanted = edit.goal_columns(embed_tokens(model, edit.goal_ids))  # c*, [d, m]
    asked = float((edit.columns(embed_tokens(model, edit.ids)) - wanted).square().sum())  # ‖c − c*‖²
    left = float((edit.columns(embed_tokens(edit.model, edit.ids)) - wanted).square().sum())  # ‖c' − c*‖²
    return (left / asked) ** 0.5 if asked > 0 else 0.0


def _moved(problem: Problem, edits: Sequence[Edit], prompts: Sequence[str]) -> list[float]:
    moved, present = [0.0] * len(edits), 0.0
    for start in range(0, len(prompts), BATCH):
        ids = problem.encoder.batch(prompts[start : start + BATCH])
        before = embed_tokens(problem.encoder.module, ids)  # [b, length, d]; once for all edits
        present += float(before.square().sum())
        for i, edit in enumerate(edits):
            moved[i] += float((embed_tokens(edit.model, ids) - before).square().sum())
    return [(each / present) ** 0.5 if present > 0 else 0.0 for each in moved]


def _sample(prompts: Sequence[str]) -> Sequence[str]:
    return prompts[:: -(-len(prompts) // SAMPLE)] if prompts else prompts  # every k-th, k rounded up
