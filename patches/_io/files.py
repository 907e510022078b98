"""Regular files, opened so that nothing else can stand in their place."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rasura.patches.errors import FormatError, NotFoundError


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """The file for reading and its `fstat`; both stay with this file whatever happens to the path.

    A link, a pipe, a socket, a device or a folder in the file's place is refused without following, blocking or reading
    it. Links among the path's parents are followed.

    Raises:
        NotFoundError: nothing is there.
        FormatError: something else than a readable regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"expected a file at {path}, got none", path=str(path)) from None
    except OSError as error:
        got = "a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise _bad(path, "a regular file", got) from None
    except ValueError:
        raise _bad(path, "a path", "one with a NUL in it") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # before fdopen, which fails on folders in its own words
            raise _bad(path, "a regular file", "a folder, pipe, socket or device")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file, status
    finally:
        os.close(descriptor)


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a regular file, read once: hash and parse these, never the path again.

    Args:
        path: the file.
        limit: most bytes it may have.

    Raises:
        NotFoundError: nothing is there.
        FormatError: no readable regular file, too long, or changing while it is read.
    """
    with open_regular(path) as (file, status):
        if status.st_size > limit:
            raise _bad(path, f"at most {limit} bytes", f"{status.st_size}")
        try:
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise _bad(path, "a readable file", error.strerror or str(error)) from None
    if len(data) != status.st_size:
        raise _bad(path, f"{status.st_size} bytes", "another number: it changed while it was read")
    return data


def _bad(path: Path, expected: str, got: str) -> FormatError:
    return FormatError(f"{path}: expected {expected}, got {got}", path=str(path))
