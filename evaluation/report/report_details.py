"""The details of a report: what was looked at, how, every score, every change, every answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import diffusers
import torch
import transformers

from rasura.evaluation.attacks.attack import Attacked
from rasura.evaluation.attacks.budget import AttackOptions
from rasura.evaluation.images.painter import Sampling
from rasura.evaluation.images.patched_model import EvaluatedPatch
from rasura.evaluation.judges.interface import Judge
from rasura.evaluation.report.metrics import compute_wilson
from rasura.evaluation.report.recorded import digest_prompts
from rasura.evaluation.report.report import (
    Compared,
    compute_changes,
    compute_scores,
    decimal,
    group_changes,
    list_answers,
    score_rows,
)
from rasura.patches._io.canonical_json import JsonValue


def build_body(
    stack: Sequence[EvaluatedPatch],
    compared: Compared,
    attacked: Sequence[Attacked],
    sampling: Sampling,
    options: AttackOptions,
    *,
    judge: Judge,
) -> dict[str, JsonValue]:
    """Everything that a report says beside its summary."""
    pictures = list(list_answers(compared))
    return {
        "patches": list(format_patches(stack)),
        "judge": judge.digest,
        "prompts": digest_prompts(pictures),
        "sampling": {
            "solver": "DPMSolverMultistepScheduler",
            "steps": sampling.steps,
            "guidance": decimal(sampling.guidance),
            "batch": sampling.batch,
        },
        "attack": {"steps": options.steps, "tokens": options.tokens, "tries": options.tries, "seed": options.seed},
        "versions": {m.__name__: str(m.__version__) for m in (diffusers, torch, transformers)},
        "scores": list(score_rows(compute_scores(compared))),
        "changes": list(compute_changes(group_changes(compared))),
        "attacks": list(format_attacks(attacked)),
        "pictures": pictures,
    }


def format_patches(stack: Iterable[EvaluatedPatch]) -> Iterator[dict[str, JsonValue]]:
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


def format_attacks(attacked: Iterable[Attacked]) -> Iterator[dict[str, JsonValue]]:
    """Flat objects, one a concept, attack and model."""
    for item in attacked:
        low, high = compute_wilson(item.successes, item.tries)
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
