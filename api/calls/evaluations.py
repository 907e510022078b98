"""The calls that draw with and without patches, and show what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python

if TYPE_CHECKING:
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.evaluation.report.evaluated import Evaluated
    from rasura.registry._storage.records.records import EvaluationRecord

__all__ = ["EvaluationCalls"]


class EvaluationCalls(Calls):
    """What bases draw with and without patches."""

    # Evaluation

    @in_python
    def evaluate(self, request: EvaluationRequest, *, reason: str = "") -> Evaluated:
        """Draw the same prompts with and without patches, have them judged, and record the report.

        Limits that were not kept raise nothing: they stand in `missed` of what is returned.

        Raises:
            InputError: no patch, no judge, bad prompts, a label that the judge does not know.
            VerificationError, BaseMismatchError, DriftError: patches or base are not what they should be.
        """
        from rasura.evaluation.evaluate import evaluate
        from rasura.evaluation.evidence_report.kept_pictures import keep_with_cases
        from rasura.evaluation.report.recorded import record_evaluation

        found = evaluate(self.store, request, self._draft("base.add", reason), self._progress)
        record_evaluation(self.store, found.report, self._draft("evaluation.add", reason))
        keep_with_cases(self.store, found, self._who(reason))
        return found

    @in_python
    def evaluations(self, *, patch: str | None = None) -> tuple[EvaluationRecord, ...]:
        """Recorded evaluations, or those of a patch (`rasura evaluation list`).

        Raises:
            NotFoundError: no such patch.
        """
        return self.store.evaluations(None if patch is None else self.store.resolve_patch(patch))

    @in_python
    def evaluation(self, evaluation: str) -> EvaluationRecord:
        """One recorded evaluation by digest or abbreviation (`rasura evaluation show`).

        Raises:
            NotFoundError: no such evaluation.
        """
        return self.store.evaluation(evaluation)
