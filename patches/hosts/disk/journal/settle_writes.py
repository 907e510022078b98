"""What an interrupted write left is put right first, and whatever the file system says becomes an error of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasura.patches.errors import HostError, HostWriteError
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal

__all__ = ["readable", "settle"]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say of a model what the file system says of its files.

    Raises:
        HostError: with the number of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        got = error.strerror or str(error)
        raise HostError(f"{path}: expected a readable model, got {got}", errno=error.errno) from None


def settle(journal: RollbackJournal, path: Path) -> bool:
    """Undo what an interrupted write left half done; whether there was any. Needs the exclusive lock.

    Raises:
        HostWriteError: it cannot be undone now; the journal is kept.
    """
    try:
        return journal.settle()
    except OSError as error:
        if not journal.interrupted():  # only leftovers that could not be removed, which mislead nobody
            return False
        raise HostWriteError(
            f"{path}: expected to finish an interrupted write, got {error.strerror or error}; it is kept for later",
            hint="make the folder writable, free some space and try again",
            errno=error.errno,
        ) from None
