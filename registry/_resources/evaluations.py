"""Evaluations: what a base drew with and without a stack of patches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches.errors import NotFoundError
from rasura.patches.types import Digest, PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.lookup import expand_id
from rasura.registry._storage.database.tables import BaseRow, EvaluatedRow, EvaluationRow, PatchRow
from rasura.registry._storage.records.records import Draft, EvaluationRecord
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_told

__all__ = ["Evaluations", "every"]

_HINT = "rasura evaluation list"
_SUMMARY_BYTES: Final = 2**17  # 64 names and numbers


class Evaluations(Opened):
    """What a registry does with evaluations."""

    def add_evaluation(self, record: EvaluationRecord, report: bytes, entry: Draft) -> bool:
        """Adds an evaluation and its report; False where it is here. The entry names its stack where it names nothing.

        Raises:
            DigestMismatchError: the report is not that of the record; nothing was stored.
            NotFoundError: its base, or a patch of its stack, is not in this registry; nothing was stored.
        """

        def work(session: Session) -> Sequence[RowChange | None]:
            change = insert(session, record)
            self.blobs.put(report, record.digest)  # before the commit, which promises that it is there
            return [change]

        draft = replace(entry, patches=entry.patches or tuple(record.patches), base=entry.base or record.base)
        return self._journal.change(draft, work) is not None

    def evaluations(self, patch: PatchId | None = None) -> tuple[EvaluationRecord, ...]:
        """All evaluations, the newest first, or those of stacks that `patch` is in."""
        with self.reading() as session:
            return every(session, patch=patch)

    def evaluation(self, ref: str) -> EvaluationRecord:
        """The evaluation whose report has this digest or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such evaluation, or several.
        """
        with self.reading() as session:
            return load(session, ref)


def insert(session: Session, record: EvaluationRecord) -> RowChange | None:
    """Adds an evaluation; the same report changes nothing.

    Raises:
        NotFoundError: its base, or a patch of its stack, is not in this registry.
    """
    if session.get(EvaluationRow, record.digest) is not None:
        return None
    _check_references(session, record)
    session.add(
        EvaluationRow(
            digest=record.digest,
            base=record.base,
            judge=record.judge,
            summary=canonical_json.dumps(dict(record.summary)).decode(),
            added_at=record.added_at,
        )
    )
    session.flush()  # the stack refers to it
    session.add_all(
        EvaluatedRow(digest=record.digest, patch_id=patch_id, strength=strength)
        for patch_id, strength in record.patches.items()
    )
    return encode_change(record)


def load(session: Session, ref: str) -> EvaluationRecord:
    """The evaluation whose report has this digest or abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such evaluation, or several.
    """
    digest = expand_id(session, EvaluationRow.digest, ref, "evaluation", _HINT)
    return _records(session, select(EvaluationRow).where(EvaluationRow.digest == digest))[0]


def every(session: Session, *, patch: PatchId | None = None) -> tuple[EvaluationRecord, ...]:
    """All evaluations, the newest first, or those of stacks that `patch` is in."""
    query = select(EvaluationRow).order_by(EvaluationRow.added_at.desc(), EvaluationRow.digest)
    if patch is not None:
        named = select(EvaluatedRow.digest).where(EvaluatedRow.patch_id == patch)
        query = query.where(EvaluationRow.digest.in_(named))
    return _records(session, query)


def _records(session: Session, query: Select[EvaluationRow]) -> tuple[EvaluationRecord, ...]:
    """Two queries, however many evaluations."""
    rows = session.scalars(query).all()
    inside = query.with_only_columns(EvaluationRow.digest).order_by(None)
    stacks: dict[str, dict[PatchId, int]] = {row.digest: {} for row in rows}
    listed = select(EvaluatedRow).where(EvaluatedRow.digest.in_(inside)).order_by(EvaluatedRow.patch_id)
    for evaluated in session.scalars(listed):
        stacks[evaluated.digest][PatchId(evaluated.patch_id)] = evaluated.strength
    found = tuple(_record(row, stacks[row.digest]) for row in rows)
    for record in found:
        check_told(session, record)
    return found


def _record(row: EvaluationRow, stack: dict[PatchId, int]) -> EvaluationRecord:
    return EvaluationRecord(Digest(row.digest), Digest(row.base), stack, row.judge, _summary(row), row.added_at)


def _summary(row: EvaluationRow) -> dict[str, str]:
    what = f"summary of evaluation {row.digest[:12]}"
    scores = Fields.of(canonical_json.loads(row.summary.encode(), what=what, limit=_SUMMARY_BYTES), what)
    return {name: scores.decimal(name) for name in scores.names()}


def _check_references(session: Session, record: EvaluationRecord) -> None:
    if session.get(BaseRow, record.base) is None:
        raise NotFoundError(f"evaluation: expected its base {record.base[:12]} here, got none", hint="rasura base add")
    known = set(session.scalars(select(PatchRow.patch_id)))
    missing = sorted(set(record.patches) - known)
    if missing:
        raise NotFoundError(f"evaluation: expected patch {missing[0][:12]} here, got none", hint="rasura patch list")
