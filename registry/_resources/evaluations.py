"""Evaluations: what a base drew with and without a stack of patches."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from rasura.patches.types import PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.records import Draft, EvaluationRecord
from rasura.registry.log.entry import Change
from rasura.registry.rows import evaluations

__all__ = ["Evaluations"]


class Evaluations(Opened):
    """What a registry does with evaluations."""

    def add_evaluation(self, record: EvaluationRecord, report: bytes, entry: Draft) -> bool:
        """Adds an evaluation and its report; False where it is here. The entry names its stack where it names nothing.

        Raises:
            DigestMismatchError: the report is not that of the record; nothing was stored.
            NotFoundError: its base, or a patch of its stack, is not in this registry; nothing was stored.
        """

        def work(session: Session) -> Sequence[Change | None]:
            change = evaluations.insert(session, record)
            self.blobs.put(report, record.digest)  # before the commit, which promises that it is there
            return [change]

        draft = replace(entry, patches=entry.patches or tuple(record.patches), base=entry.base or record.base)
        return self._journal.change(draft, work) is not None

    def evaluations(self, patch: PatchId | None = None) -> tuple[EvaluationRecord, ...]:
        """All evaluations, the newest first, or those of stacks that `patch` is in."""
        with self.reading() as session:
            return evaluations.every(session, patch=patch)

    def evaluation(self, ref: str) -> EvaluationRecord:
        """The evaluation whose report has this digest or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such evaluation, or several.
        """
        with self.reading() as session:
            return evaluations.load(session, ref)
