"""Evaluation reports: reading one strictly, recording it, and getting its bytes back.

A report is canonical JSON that says what a base drew with and without a stack of patches:

    {"format":"rasura-evaluation/1", "base":"<digest>", "patches":{"<id>":16}, "judge":"<name of the classifier>",
     "summary":{"forget":"0.979", "held_out":"0.979", "retain":"1.000"}, "body":{…}}

Strengths are sixteenths, numbers decimal texts. The six fields are all there are; what lies in `body` belongs to the
program that drew, except that `body.scores`, where it is a list of flat objects, can be shown as a table, and that
`body.judge` and `body.prompts` are the digests of who judged and of what was asked, where the report says so. The
report's identity is the SHA-256 of its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self, TypeGuard

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, InputError, NotFoundError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import Draft, EvaluationRecord
from rasura.registry._storage.records.validation import MAX_NAME, MAX_SIXTEENTHS
from rasura.registry.registry import Registry

__all__ = ["ADD", "FORMAT", "MAX_REPORT_BYTES", "Report", "digest_prompts", "read_report", "record_evaluation"]

FORMAT: Final = "rasura-evaluation/1"
ADD: Final = "evaluation.add"
"""What the audit log calls it."""

MAX_REPORT_BYTES: Final = 16 * 1024**2
"""Most bytes of a report; one line a picture of a thousand pictures is a tenth of a megabyte."""

_WHAT: Final = "evaluation report"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ASKED: Final = ("prompt", "seed", "group", "kind", "wanted")


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says.

    Attributes:
        base: digest of the base that was drawn with.
        patches: the stack, strengths in sixteenths.
        judge: name of the classifier.
        summary: decimal texts by name.
        body: the details.
    """

    base: Digest
    patches: Mapping[PatchId, int]
    judge: str
    summary: Mapping[str, str]
    body: Mapping[str, JsonValue]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The report of its bytes, read strictly.

        Raises:
            FormatError: not canonical JSON, another format, unknown or missing fields, a value out of range.
        """
        fields = Fields.of(canonical_json.loads(data, what=_WHAT, limit=MAX_REPORT_BYTES), _WHAT)
        _check_format(fields.text("format"))
        stack, summary = fields.fields("patches"), fields.fields("summary")
        report = cls(
            base=fields.digest("base"),
            patches={PatchId(p): stack.integer(p, -MAX_SIXTEENTHS, MAX_SIXTEENTHS) for p in stack.names()},
            judge=fields.text("judge", limit=MAX_NAME),
            summary={name: summary.decimal(name) for name in summary.names()},
            body=_object(fields, "body"),
        )
        fields.done()
        return report

    @property
    def scores(self) -> tuple[Mapping[str, JsonValue], ...]:
        """`body.scores` where it is a list of flat objects, else nothing."""
        found = self.body.get("scores")
        rows = [row for row in found if _is_flat(row)] if isinstance(found, list) else []
        return tuple(rows) if rows == found else ()

    @property
    def judge_digest(self) -> Digest | None:
        """SHA-256 of what decided the judge's answers; None of a report that does not say."""
        return _find_digest(self.body.get("judge"))

    @property
    def prompts_digest(self) -> Digest | None:
        """SHA-256 of what was asked, of the report's own list of it; None where it names none, or another's."""
        said, asked = _find_digest(self.body.get("prompts")), self.body.get("pictures")
        rows = [row for row in asked if isinstance(row, Mapping)] if isinstance(asked, list) else []
        if said is None or rows != asked or any(not row.keys() >= set(_ASKED) for row in rows):
            return None
        return said if said == digest_prompts(rows) else None


def digest_prompts(pictures: Iterable[Mapping[str, JsonValue]]) -> Digest:
    """SHA-256 of what was asked, in its order: prompt, seed, group, kind and wanted labels, as RFC 8785 JSON."""
    return digest_of(canonical_json.dumps([{name: picture[name] for name in _ASKED} for picture in pictures]))


def record_evaluation(registry: Registry, report: bytes, draft: Draft) -> tuple[EvaluationRecord, bool]:
    """Read a report and register it: its summary as a record, its bytes as a blob.

    Args:
        registry: where.
        report: the bytes.
        draft: who and why; action, stack and base of the entry are filled in.

    Returns:
        The record, and whether it is new here.

    Raises:
        FormatError: the report breaks its format.
        NotFoundError: its base, or a patch of its stack, is not in this registry.
        Nothing was stored then.
    """
    record = _record(report, Report.from_bytes(report), registry)
    details = {**draft.details, "evaluation": record.digest, "judge": record.judge}
    if registry.add_evaluation(record, report, replace(draft, action=ADD, details=details)):
        return record, True
    return registry.evaluation(record.digest), False


def read_report(registry: Registry, digest: str) -> bytes:
    """The bytes of a registered report by its digest or an abbreviation, verified.

    Raises:
        NotFoundError, AmbiguousIdError: no such evaluation, several, or its report is missing.
        DigestMismatchError: the report was changed.
    """
    record = registry.evaluation(digest)
    try:
        return registry.blobs.read(record.digest, limit=MAX_REPORT_BYTES)
    except NotFoundError as error:
        hint = "restore the registry's blobs from a backup, or evaluate again"
        raise NotFoundError(error.message, hint=hint, **error.details) from None


def _record(data: bytes, report: Report, registry: Registry) -> EvaluationRecord:
    digest = digest_of(data)
    try:
        return EvaluationRecord(
            digest, report.base, report.patches, report.judge, report.summary, added_at=registry.now()
        )
    except InputError as error:
        raise FormatError(f"{_WHAT}: {error.message}", what=_WHAT) from None


def _find_digest(value: JsonValue) -> Digest | None:
    return Digest(value) if isinstance(value, str) and _DIGEST.fullmatch(value) else None


def _check_format(found: str) -> None:
    if found != FORMAT:
        raise FormatError(f"{_WHAT}: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura")


def _is_flat(row: JsonValue) -> TypeGuard[Mapping[str, JsonValue]]:
    return isinstance(row, Mapping) and all(value is None or isinstance(value, str | int) for value in row.values())


def _object(fields: Fields, name: str) -> Mapping[str, JsonValue]:
    inside = fields.fields(name)
    return {key: inside.value(key) for key in inside.names()}
