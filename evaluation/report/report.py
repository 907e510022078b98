"""The report of an evaluation: canonical JSON that holds every answer, so that each of its numbers can be recomputed.

    format   "rasura-evaluation/1"
    base     digest of the base
    patches  strength in sixteenths by patch id
    judge    what the judge calls itself
    summary  decimals by name: forget, retain, held_out, harmonic, …
    body     everything else: patches, sampling, scores, changes, attacks, pictures

No time, no path and no float stands in it: the same evaluation on the same machine gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL.Image import Image

from rasura.evaluation.images.questions import PARAPHRASE, Question, Score, count
from rasura.evaluation.judges.interface import Sight
from rasura.evaluation.report.metrics import (
    Frechet,
    PictureChange,
    compute_frechet,
    compute_harmonic_mean,
    compute_wilson,
    measure_change,
)
from rasura.evaluation.report.recorded import FORMAT
from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import JsonValue
from rasura.patches.types import Digest, PatchId

GROUPS: Final = ("forget", "retain", "held_out")


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """The same questions drawn by the base and by the patched model.

    Attributes:
        asked: the questions.
        before: the base's pictures.
        after: the patched model's, from the same noise.
        seen_before: the judge's opinion of the base's.
        seen_after: of the patched model's.
    """

    asked: Sequence[Question]
    before: Sequence[Image]
    after: Sequence[Image]
    seen_before: Sight
    seen_after: Sight


@dataclass(frozen=True, slots=True)
class GroupChange:
    """How far the pictures of one group moved."""

    group: str
    change: PictureChange
    frechet: Frechet | None


def compute_scores(compared: Compared) -> list[Score]:
    """Accuracy by group and axis; then by kind; then by what was asked for, in each kind."""
    keys: dict[tuple[str, str, str, str], None] = {}
    for group in GROUPS:
        chosen = [q for q in compared.asked if q.group == group]
        axes = dict.fromkeys(axis for q in chosen for axis in q.wanted)
        for axis in axes:
            kinds = dict.fromkeys(q.kind for q in chosen if axis in q.wanted)
            keys |= {(group, axis, kind, ""): None for kind in kinds}
        for axis in axes:
            keys |= {(group, axis, q.kind, q.wanted[axis]): None for q in chosen if axis in q.wanted}
    return [_count(compared, *key) for key in keys]


def summarise(compared: Compared) -> dict[str, float]:
    """One number a group, of the pictures that the base draws right; see docs/evaluation.md.

    `forget` counts prompts that name the concept; `forget_paraphrase` those that do not. A group that was not asked
    for, or that the base never draws right, has no number, and then there is no harmonic mean.
    """
    kept = {group: _kept(compared, group, paraphrase=False) for group in GROUPS}
    found: dict[str, float | None] = {
        "forget": None if kept["forget"] is None else 1 - kept["forget"],
        "retain": kept["retain"],
        "held_out": kept["held_out"],
    }
    known = [value for value in found.values() if value is not None]
    found["harmonic"] = compute_harmonic_mean(known) if len(known) == len(GROUPS) else None
    paraphrased = _kept(compared, "forget", paraphrase=True)
    found["forget_paraphrase"] = None if paraphrased is None else 1 - paraphrased
    return {name: value for name, value in found.items() if value is not None}


def group_changes(compared: Compared) -> list[GroupChange]:
    """How far the pictures of each group moved, in pixels and in the judge's features."""
    found = []
    for group in GROUPS:
        chosen = [i for i, question in enumerate(compared.asked) if question.group == group]
        if chosen:
            change = measure_change([compared.before[i] for i in chosen], [compared.after[i] for i in chosen])
            distance = compute_frechet(compared.seen_before.features[chosen], compared.seen_after.features[chosen])
            found.append(GroupChange(group, change, distance))
    return found


def encode_report(
    base: Digest,
    patches: Mapping[PatchId, int],
    judge: str,
    numbers: Mapping[str, float],
    body: Mapping[str, JsonValue],
) -> bytes:
    """The canonical bytes."""
    return canonical_json.dumps(
        {
            "format": FORMAT,
            "base": base,
            "patches": {str(patch_id): strength for patch_id, strength in patches.items()},
            "judge": judge,
            "summary": {name: decimal(value) for name, value in numbers.items()},
            "body": body,
        }
    )


def decimal(value: float) -> str:
    """Four digits after the point: no number here is known better."""
    return f"{value:.4f}"


def score_rows(scores: Iterable[Score]) -> Iterator[dict[str, JsonValue]]:
    """Flat objects, one a score."""
    for score in scores:
        low, high = compute_wilson(score.after, score.n)
        low_before, high_before = compute_wilson(score.before, score.n)
        yield {
            "group": score.group,
            "axis": score.axis,
            "kind": score.kind,
            "label": score.label,
            "n": score.n,
            "base_right": score.before,
            "patched_right": score.after,
            "both_right": score.both,
            "base": decimal(score.before / score.n),
            "base_low": decimal(low_before),
            "base_high": decimal(high_before),
            "patched": decimal(score.after / score.n),
            "patched_low": decimal(low),
            "patched_high": decimal(high),
        }


def compute_changes(changes: Iterable[GroupChange]) -> Iterator[dict[str, JsonValue]]:
    """Flat objects, one a group."""
    for item in changes:
        distance = item.frechet
        yield {
            "group": item.group,
            "n": item.change.n,
            "ssim": None if item.change.ssim is None else decimal(item.change.ssim),
            "change": decimal(item.change.change),
            "identical": item.change.identical,
            "frechet": None if distance is None else decimal(distance.distance),
            "frechet_width": None if distance is None else distance.width,
            "frechet_regularised": None if distance is None else distance.regularised,
        }


def list_answers(compared: Compared) -> Iterator[dict[str, JsonValue]]:
    """One object a question: what was asked, and what the judge said of both pictures."""
    answers = zip(compared.asked, compared.seen_before.answers, compared.seen_after.answers, strict=True)
    for question, before, after in answers:
        yield {
            "prompt": question.shot.prompt,
            "seed": question.shot.seed,
            "group": question.group,
            "kind": question.kind,
            "wanted": dict(question.wanted),
            "base": {axis: before[axis] for axis in question.wanted},
            "patched": {axis: after[axis] for axis in question.wanted},
        }


def _count(compared: Compared, group: str, axis: str, kind: str, label: str) -> Score:
    before, after = compared.seen_before.answers, compared.seen_after.answers
    return count(compared.asked, before, after, group=group, axis=axis, kind=kind, label=label)


def _kept(compared: Compared, group: str, *, paraphrase: bool) -> float | None:
    """The share of right answers that stay right, over all axes."""
    right = both = 0
    for axis in {axis for q in compared.asked for axis in q.wanted}:
        for kind in {q.kind for q in compared.asked if (q.kind == PARAPHRASE) == paraphrase}:
            score = _count(compared, group, axis, kind, "")
            right, both = right + score.before, both + score.both
    return both / right if right else None
