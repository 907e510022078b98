"""What an evaluation came to: the report's bytes, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rasura.evaluation.attacks.attack import Attacked
from rasura.evaluation.images.image_cache import Effort
from rasura.evaluation.images.patched_model import EvaluatedPatch
from rasura.evaluation.report.limits import Outcome
from rasura.evaluation.report.report import Compared


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """An evaluation.

    Attributes:
        report: the canonical bytes.
        base: name of the base.
        judge: title of the judge.
        stack: the patches.
        compared: questions, pictures and answers.
        numbers: the summary.
        attacked: what attacks came to.
        effort: pictures drawn, seconds, pictures that were at hand; not in the report, which holds no time.
        outcomes: what came of each limit.
    """

    report: bytes
    base: str
    judge: str
    stack: tuple[EvaluatedPatch, ...]
    compared: Compared
    numbers: Mapping[str, float]
    attacked: tuple[Attacked, ...]
    effort: Effort
    outcomes: tuple[Outcome, ...] = ()

    @property
    def missed(self) -> tuple[Outcome, ...]:
        """The limits that were not kept."""
        return tuple(outcome for outcome in self.outcomes if not outcome.kept)
