"""The details of a report: what was looked at, how, every score, every change, every answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rasura.evaluation.report.metrics import wilson
from rasura.evaluation.report.report import (
    Compared,
    all_scores,
    change_rows,
    decimal,
    group_changes,
    picture_rows,
    score_rows,
)

if TYPE_CHECKING:
    from rasura.evaluation.attacks.attack import Attacked, AttackOptions
    from rasura.evaluation.images.painter import Sampling
    from rasura.evaluation.images.patched_model import StackMember
    from rasura.patches._io.canonical_json import JsonValue


def body(
    stack: Sequence[StackMember],
    compared: Compared,
    attacked: Sequence[Attacked],
    sampling: Sampling,
    options: AttackOptions,
) -> dict[str, JsonValue]:
    """Everything that a report says beside its summary."""
    import diffusers
    import torch
    import transformers

    return {
        "patches": list(patch_rows(stack)),
        "sampling": {
            "solver": "DPMSolverMultistepScheduler",
            "steps": sampling.steps,
            "guidance": decimal(sampling.guidance),
            "batch": sampling.batch,
        },
        "attack": {"steps": options.steps, "tokens": options.tokens, "tries": options.tries, "seed": options.seed},
        "versions": {m.__name__: str(m.__version__) for m in (diffusers, torch, transformers)},
        "scores": list(score_rows(all_scores(compared))),
        "changes": list(change_rows(group_changes(compared))),
        "attacks": list(attack_rows(attacked)),
        "pictures": list(picture_rows(compared)),
    }


def patch_rows(stack: Iterable[StackMember]) -> Iterator[dict[str, JsonValue]]:
    """What each patch is and costs: bytes of its four files without the signature, largest rank, parameters."""
    for member in stack:
        manifest, increments = member.patch.manifest, member.patch.tensors.increments
        yield {
            "id": member.patch.patch_id,
            "concept": manifest.concept.text,
            "anchor": manifest.concept.anchor,
            "method": manifest.eraser.name,
            "strength": str(member.strength),
            "bytes": sum(map(len, member.patch.files().values())),
            "rank": max(increment.A.shape[0] for increment in increments.values()),
            "parameters": len(increments),
        }


def attack_rows(attacked: Iterable[Attacked]) -> Iterator[dict[str, JsonValue]]:
    """Flat objects, one a concept, attack and model."""
    for item in attacked:
        low, high = wilson(item.successes, item.tries)
        yield {
            "axis": item.axis,
            "label": item.label,
            "attack": item.attack,
            "model": item.model,
            "tries": item.tries,
            "successes": item.successes,
            "rate": decimal(item.successes / item.tries),
            "rate_low": decimal(low),
            "rate_high": decimal(high),
            "prompt": item.prompt,
            "loss_first": None if item.loss_first is None else decimal(item.loss_first),
            "loss_last": None if item.loss_last is None else decimal(item.loss_last),
        }
