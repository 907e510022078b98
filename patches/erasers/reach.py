"""How far an edit of the text encoder reaches: what the UNet will read, before and after."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from rasura.patches.concepts import BATCH
from rasura.patches.hidden import embedded

if TYPE_CHECKING:
    from rasura.patches.erasers.edits import Edit
    from rasura.patches.erasers.problem import Problem


def reach(problem: Problem, edit: Edit) -> dict[str, str]:
    """Ratios of Frobenius norms of the encoder's output, all positions, as decimals.

    embedding_residual: ‖c' − c*‖ / ‖c − c*‖ on the concept's chosen positions; 0: nothing of the concept is left.
    embedding_retained: ‖c' − c‖ / ‖c‖ on the retained prompts.
    embedding_held_out: the same on prompts that nobody retained.
    """
    model, request = problem.encoder.module, problem.request
    before, goals = (embedded(model, ids) for ids in (edit.ids, edit.goal_ids))
    after, wanted = edit.columns(embedded(edit.model, edit.ids)), edit.goal_columns(goals)
    asked = float((edit.columns(before) - wanted).square().sum())
    left = float((after - wanted).square().sum())
    numbers = {
        "embedding_residual": (left / asked) ** 0.5 if asked > 0 else 0.0,
        "embedding_retained": _moved(problem, edit, request.retained_prompts()),
        "embedding_held_out": _moved(problem, edit, request.held_out_prompts()),
    }
    return {name: f"{number:.3e}" for name, number in numbers.items()}


def _moved(problem: Problem, edit: Edit, prompts: Iterable[str]) -> float:
    waiting, moved, present = iter(prompts), 0.0, 0.0
    while part := list(islice(waiting, BATCH)):
        ids = problem.encoder.batch(part)
        before, after = embedded(problem.encoder.module, ids), embedded(edit.model, ids)
        moved += float((after - before).square().sum())
        present += float(before.square().sum())
    return (moved / present) ** 0.5 if present > 0 else 0.0
