"""The calls that draw with and without patches, and show what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.evaluation.report import signed_evaluation
from rasura.evaluation.report.recorded import record_evaluation
from rasura.evaluation.report.signed_evaluation import sign_evaluation
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.registry.log.notes.signed_note import VerifyKey

if TYPE_CHECKING:
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.evaluation.report.evaluated import Evaluated
    from rasura.evaluation.report.signed_evaluation import VerifiedEvaluation
    from rasura.registry._storage.records.records import EvaluationRecord

__all__ = ["EvaluationCalls", "verify_evaluation"]


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

    @in_python
    def attest_evaluation(self, evaluation: str, *, key: str | None = None) -> bytes:
        """A recorded evaluation with its whole report, signed (`rasura attest --evaluation`).

        Args:
            evaluation: digest or abbreviation.
            key: whose signature; None: the only one that is here.

        Raises:
            NotFoundError: no such evaluation, or no key.
            InputError: its report does not name the digests of judge and prompts, or several keys can sign.
        """
        return sign_evaluation(self.store, evaluation, key)


@in_python
def verify_evaluation(data: bytes, *, key: str | Sequence[str], vkey: str | None = None) -> VerifiedEvaluation:
    """Check a signed evaluation; no registry is needed (`rasura verify FILE`).

    Args:
        data: what `Registry.attest_evaluation` gave.
        key: PEM texts of the public keys whose signatures count, one or several.
        vkey: of the log, to verify the entry that recorded it, too.

    Raises:
        SignatureError, UntrustedKeyError: it is not signed by one of them.
        AuditError: the entry is not in that log.
    """
    keys = [PublicKey.load(pem) for pem in ([key] if isinstance(key, str) else key)]
    return signed_evaluation.verify_evaluation(data, keys, vkey=VerifyKey.parse(vkey) if vkey else None)
