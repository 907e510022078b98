"""How an entry of the log tells of an error."""

from dataclasses import replace
from typing import Final

from rasura.patches.errors import (
    BaseMismatchError,
    ConflictError,
    DriftError,
    RasuraError,
    RefusedError,
    VerificationError,
)
from rasura.registry._storage.records.records import Draft

__all__ = ["describe_outcome"]

_NO: Final = (RefusedError, VerificationError, BaseMismatchError, DriftError, ConflictError)
"""What was understood and declined; anything else could not be done."""


def describe_outcome(draft: Draft, error: RasuraError) -> Draft:
    """The draft as the entry of an action that this error ended."""
    return replace(draft, outcome="refused" if isinstance(error, _NO) else "failed", error=error.code)
