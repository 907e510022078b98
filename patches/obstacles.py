"""All that stands in the way at once: checks that need not each other, and one error that names what they found.

    obstacles = Obstacles()
    with obstacles.noting():
        check_reason(...)
    with obstacles.noting():
        check_evaluated(...)
    obstacles.refuse()  # raises the first, which carries the others

Whoever handles one error handles several: what is raised is the first that was found, of its own type and exit code,
with the others in `RasuraError.others`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rasura.patches.errors import RasuraError

__all__ = ["Obstacles", "together"]


@dataclass(slots=True)
class Obstacles:
    """What was found so far, in that order."""

    found: list[RasuraError] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.found)

    def noting(self) -> Self:
        """A context that keeps what is raised inside, and what it carries, and goes on after it."""
        return self

    # Methods of a class, no generator: type checkers know by `-> bool` that what follows may run although not all that
    # is inside did.
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, RasuraError):
            self.add(error)
            return True
        return False

    def add(self, error: RasuraError) -> None:
        """Keep an error and those that it carries; the same sentence once."""
        for each in (error, *error.others):
            if all(each.message != known.message for known in self.found):
                self.found.append(each)

    def refuse(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            RasuraError: the first, with the others in `others`.
        """
        if self.found:
            raise together(self.found) from None


def together(found: Sequence[RasuraError]) -> RasuraError:
    """The first of these errors, which carries the others; Python's tracebacks show them as notes."""
    first, *others = found
    first.others = tuple(others)
    first.__notes__ = [f"and: {error.message}" for error in others]
    for error in others:
        error.others = ()
    return first
