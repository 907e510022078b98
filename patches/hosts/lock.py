"""One process at a time in a model's folder.

The lock is on the folder itself (flock of its descriptor): nothing has to be made or removed for it, and the kernel
drops it when the process dies.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rasura.patches.errors import BusyError, HostError, UnsupportedHostError

__all__ = ["Lock", "locked"]

_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


class Lock:
    """A lock that is held; it can be made exclusive and shared again."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder = folder
        self._descriptor = descriptor

    def make(self, *, exclusive: bool) -> None:
        """Hold the lock in this way from now on, without waiting.

        Raises:
            BusyError: another process (or another host object of this one) holds it.
            UnsupportedHostError: the file system has no locks.
        """
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise BusyError(
                    f"{self._folder}: expected nobody else to use this model, got another process that does",
                    hint="try again when it has finished",
                    folder=str(self._folder),
                ) from None
            raise UnsupportedHostError(
                f"{self._folder}: expected a file system with locks, got {error.strerror}",
                hint="write a copy on a local disk instead: --out DIR",
            ) from None


@contextmanager
def locked(folder: Path, *, exclusive: bool) -> Iterator[Lock]:
    """Hold the lock of `folder` for the length of the block: exclusive for writing, shared for reading.

    Raises:
        BusyError: another process holds it.
        HostError: the folder cannot be opened.
        UnsupportedHostError: the file system has no locks.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{folder}: expected a readable folder, got {error.strerror}", errno=error.errno) from None
    try:
        lock = Lock(folder, descriptor)
        lock.make(exclusive=exclusive)
        yield lock
    finally:
        os.close(descriptor)
