"""One process at a time in a model's folder, or in its single file.

The lock is on the folder or file itself (flock of its descriptor): nothing has to be made or removed for it, and the
kernel drops it when the process dies.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches.errors import BusyError, HostError, UnsupportedHostError

__all__ = ["FileLock", "locked", "sole_mover"]

_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_NOT_OURS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY})
_OPENING: Final = os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe must not wait for its other end


@dataclass(frozen=True, slots=True)
class FileLock:
    """A lock that is held; it can be made exclusive and shared again."""

    model: Path
    descriptor: int

    def make(self, *, exclusive: bool) -> None:
        """Hold the lock in this way from now on, without waiting.

        Raises:
            BusyError: another process (or another host object of this one) holds it.
            UnsupportedHostError: the file system has no locks.
        """
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            raise _refused(self.model, error) from None


@contextmanager
def locked(model: Path, *, exclusive: bool) -> Iterator[FileLock]:
    """Hold the lock of a folder or file for the length of the block: exclusive for writing, shared for reading.

    Raises:
        BusyError: another process holds it.
        HostError: it cannot be opened.
        UnsupportedHostError: the file system has no locks.
    """
    try:
        descriptor = os.open(model, _OPENING | os.O_RDONLY)
    except OSError as error:
        raise _unreadable(model, error) from None
    try:
        lock = FileLock(model, descriptor)
        lock.make(exclusive=exclusive)
        yield lock
    finally:
        os.close(descriptor)


@contextmanager
def sole_mover(file: Path) -> Iterator[None]:
    """Keep others from moving a single file for the length of the block; the lock of `locked` is another one.

    Where the system has them, it is an open file description lock, for which the file must be open for writing. Who may
    not open it so cannot move it either, and is told why by the first write. Elsewhere it is the lock of the folder
    that the file lies in, so that all files of one folder wait for each other.

    Raises:
        BusyError: another process moves it.
        HostError: it cannot be opened.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        with locked(file.parent, exclusive=True):
            yield
        return
    try:
        descriptor = os.open(file, _OPENING | os.O_RDWR)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise _unreadable(file, error) from None
        yield
        return
    try:
        _take(file, descriptor)
        yield
    finally:
        os.close(descriptor)


def _take(file: Path, descriptor: int) -> None:
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # Linux' struct flock, all of the file
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole)
    except OSError as error:
        raise _refused(file, error) from None


def _refused(model: Path, error: OSError) -> BusyError | UnsupportedHostError:
    if error.errno in _HELD:
        return BusyError(
            f"{model}: expected nobody else to use this model, got another process that does",
            hint="try again when it has finished",
            model=str(model),
        )
    return UnsupportedHostError(
        f"{model}: expected a file system with locks, got {error.strerror}",
        hint="write a copy on a local disk instead: --out",
    )


def _unreadable(model: Path, error: OSError) -> HostError:
    return HostError(f"{model}: expected a readable model, got {error.strerror}", errno=error.errno)
