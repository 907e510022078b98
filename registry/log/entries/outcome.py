"""What the entry of an action says that ended in an error: `refused` or `failed`, and the error's code."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol

from rasura.patches.errors import (
    BaseMismatchError,
    ConflictError,
    DriftError,
    RasuraError,
    RefusedError,
    VerificationError,
)
from rasura.registry._storage.records.records import Draft

__all__ = ["describe_outcome", "log_failure"]

_NO: Final = (RefusedError, VerificationError, BaseMismatchError, DriftError, ConflictError)
"""What was understood and declined; anything else could not be done."""


def describe_outcome(draft: Draft, error: RasuraError) -> Draft:
    """The draft as the entry of an action that this error ended."""
    return replace(draft, outcome="refused" if isinstance(error, _NO) else "failed", error=error.code)


class Noting(Protocol):
    """What an action's end is noted in. The log lies below the registry, so it names no `Registry`."""

    def note(self, draft: Draft) -> object:
        """Add an entry."""


@contextmanager
def log_failure(registry: Noting, draft: Draft, *, dry_run: bool = False) -> Iterator[None]:
    """Log an error that ends what is done inside, and let it through.

    Args:
        registry: which log.
        draft: the entry of the action.
        dry_run: log nothing: nothing was to be done.
    """
    try:
        yield
    except RasuraError as error:
        if not dry_run:
            registry.note(describe_outcome(draft, error))
        raise
