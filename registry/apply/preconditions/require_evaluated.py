"""Nothing is put on a model that nobody looked at, where the policy demands that somebody did."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import CheckRefusedError
from rasura.patches.types import SHORT, Digest
from rasura.registry._storage.records.records import EvaluationRecord
from rasura.registry.registry import Registry

__all__ = ["EVALUATION", "find_evaluation", "require_evaluated"]

EVALUATION: Final = "evaluation"
"""Detail of a motion's entries: the digest of the newest evaluation of exactly the set that it leaves."""


def require_evaluated(registry: Registry, base: Digest, wanted: Stack, policy: Policy) -> None:
    """Refuse a set that the policy wants evaluated and that was not, or not well enough.

    An evaluation counts for exactly the set that was drawn: these patches, at these strengths, on this base. Of several
    that say what the policy asks for, the newest counts.

    Args:
        registry: where evaluations are recorded.
        base: what the set is applied to.
        wanted: the set; an empty one needs none.
        policy: its `evaluated`, `min_forget` and `min_retain`.

    Raises:
        CheckRefusedError: with the command that evaluates the set.
    """
    if not policy.evaluated or not wanted:
        return
    # A limit of 0 asks for nothing, not even that the score was measured.
    lowest = {name: value for name, value in (("forget", policy.min_forget), ("retain", policy.min_retain)) if value}
    asked = " and ".join(f"{name} of {value:g} or more" for name, value in lowest.items())
    expected = "expected one, as the policy demands" + (f", with {asked}" if asked else "")
    name, hint = registry.base(base).name, _command(registry.base(base).name, wanted, lowest)
    found = _newest(registry, base, wanted, lowest)
    if found is None:
        raise CheckRefusedError(
            f"no evaluation of exactly {_named(wanted)} on base {name} is recorded: {expected}", hint=hint
        )
    short = {
        score: found.summary[score]
        for score, value in lowest.items()
        if Decimal(found.summary[score]) < Decimal(str(value))  # exact: 0.9 meets a limit of 0.9
    }
    if short:
        said = " and ".join(f"{score} {text}" for score, text in short.items())
        raise CheckRefusedError(
            f"evaluation {found.digest[:SHORT]} of {_named(wanted)} on base {name} says {said}: {expected}",
            hint=f"rasura evaluation show {found.digest[:SHORT]}",
            evaluation=found.digest,
        )


def find_evaluation(registry: Registry, base: Digest, wanted: Stack) -> Digest | None:
    """What a motion to this set rests on: the newest evaluation of exactly it; None where nobody looked."""
    found = _newest(registry, base, wanted, {}) if wanted else None
    return None if found is None else found.digest


def _newest(registry: Registry, base: Digest, wanted: Stack, lowest: Mapping[str, float]) -> EvaluationRecord | None:
    """The newest evaluation of exactly this set that says what is asked for."""
    records = registry.evaluations(next(iter(wanted)))  # any one of the set's patches finds them; the newest first
    same = (r for r in records if r.base == base and dict(r.patches) == wanted.sixteenths)
    return next((record for record in same if lowest.keys() <= set(record.summary)), None)


def _named(wanted: Stack) -> str:
    return ", ".join(patch_id[:SHORT] for patch_id in wanted)


def _command(base: str, wanted: Stack, lowest: Mapping[str, float]) -> str:
    patches = [i[:SHORT] + ("" if s == ONE else f"={s}") for i, s in wanted.items()]
    options = [*(f"--patch {text}" for text in patches), *(f"--min {n}={v:g}" for n, v in lowest.items())]
    return " ".join([f"rasura evaluate --base {shlex.quote(base)}", *options])
