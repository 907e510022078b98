"""Files that are there whole or not at all, and that survive a power cut once written."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rasura.patches._io.byte_ranges import sync_folder
from rasura.patches._io.incoming import INCOMING, lock_incoming
from rasura.patches.errors import NotFoundError, RegistryError

__all__ = ["make_folder", "read_own_file", "sync_folder", "temporary", "translated", "write_atomic"]

_PRIVATE_FOLDER = 0o700


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns an `OSError` inside into a RegistryError that says what could not be done.

    Raises:
        RegistryError: disk full, read-only, no permission, any other I/O error.
    """
    try:
        yield
    except OSError as error:
        raise RegistryError(f"cannot {what}: {error.strerror or error}", errno=error.errno or 0) from error


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces a file in one step: after a crash it has the old bytes or the new ones.

    Raises:
        RegistryError: disk full, read-only, any other I/O error; the file is as it was.
    """
    with translated(f"write {path}"), temporary(path.parent, data, mode=mode) as written:
        written.replace(path)
        sync_folder(path.parent)


@contextmanager
def temporary(folder: Path, data: bytes, *, mode: int) -> Iterator[Path]:
    """A file with these bytes on disk (fsync) under a name that nobody else has; gone at the end unless renamed.

    It is locked for as long as this process is at it: one that is not was left by a process that died.
    """
    descriptor, name = tempfile.mkstemp(prefix=INCOMING, dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            lock_incoming(descriptor)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def make_folder(path: Path, *, private: bool = False) -> None:
    """The folder, and its parents, where they are missing."""
    with translated(f"make {path}"):
        path.mkdir(mode=_PRIVATE_FOLDER if private else 0o777, parents=True, exist_ok=True)


def read_own_file(path: Path, *, limit: int, what: str) -> bytes:
    """All bytes of a regular file, never through a symbolic link; a FIFO or a device does not block.

    Raises:
        NotFoundError: there is none.
        RegistryError: no regular file, longer than `limit`, or unreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"{what}: expected a file at {path}, got none", path=str(path)) from None
    except OSError as error:
        raise RegistryError(f"{what}: cannot open {path}: {error.strerror}", path=str(path)) from error
    with translated(f"read {path}"), os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise RegistryError(f"{what}: expected a regular file of at most {limit} bytes at {path}", path=str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise RegistryError(f"{what}: {path} grew past {limit} bytes while it was read", path=str(path))
    return data
