"""Which evaluations a report shows, whether they measured what is there now, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rasura.evaluation.report.recorded import Report, read_report
from rasura.patches._io.sha256 import digest_of
from rasura.registry._storage.records.validation import instant

if TYPE_CHECKING:
    from rasura.evaluation.evidence_report.kept_pictures import Pictures
    from rasura.patches._io.json_fields import JsonValue
    from rasura.patches.types import PatchId
    from rasura.registry._storage.records.records import EvaluationRecord
    from rasura.registry.cases.clock import CaseStanding
    from rasura.registry.registry import Registry

__all__ = ["find_evaluations", "is_current", "say_evaluation"]

MAX_EVALUATIONS: Final = 4
"""Newest evaluations that a report shows; the log names the others."""


def find_evaluations(
    registry: Registry, standing: CaseStanding | None, ids: Sequence[PatchId], sets: Sequence[Mapping[PatchId, int]]
) -> tuple[EvaluationRecord, ...]:
    """Those of the case, else those of its changes: first what is of a set that is there now, then the newest.

    Args:
        registry: where they are recorded.
        standing: of the case, if the report is about one.
        ids: the changes.
        sets: what is there now, in sixteenths; see `is_current`.
    """
    own = [str(e.details["evaluation"]) for e in (standing.entries if standing else ()) if e.action == "evaluation.add"]
    found = {digest: registry.evaluation(digest) for digest in own}
    if not found:
        for patch_id in ids:
            found |= {each.digest: each for each in registry.evaluations(patch_id)}
    ordered = sorted(found.values(), key=lambda each: (is_current(each, sets), each.added_at), reverse=True)
    return tuple(ordered[:MAX_EVALUATIONS])


def is_current(record: EvaluationRecord, sets: Sequence[Mapping[PatchId, int]]) -> bool:
    """Whether it measured a set that is there now: the same changes at the same strengths, and no others."""
    return any(dict(record.patches) == dict(each) for each in sets)


def say_evaluation(
    registry: Registry, record: EvaluationRecord, pictures: Pictures | None, *, current: bool
) -> JsonValue:
    """What a report says of an evaluation; `current`: whether it is of a set that is there now."""
    report = Report.from_bytes(read_report(registry, record.digest))
    scores: list[JsonValue] = [dict(row) for row in report.scores if (row["group"] == "forget") == bool(row["label"])]
    attacks = report.body.get("attacks")
    kept: list[JsonValue] = [
        {
            "group": pair.group,
            "prompt": pair.prompt,
            "wanted": pair.wanted,
            "seen_before": pair.seen_before,
            "seen_after": pair.seen_after,
            "before": digest_of(pair.before),
            "after": digest_of(pair.after),
        }
        for pair in (() if pictures is None else pictures.pairs)
    ]
    return {
        "digest": record.digest,
        "judge": record.judge,
        "made_at": instant(record.added_at),
        "current": current,
        "patches": {str(patch_id): sixteenths for patch_id, sixteenths in record.patches.items()},
        "summary": dict(record.summary),
        "scores": scores,
        "attacks": attacks if isinstance(attacks, list) else [],
        "pictures": kept,
    }
