"""Regular files, opened so that nothing else can stand in their place."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from rasura.patches.errors import FormatError, NotFoundError

_CONFIG_LIMIT: Final = 16 * 2**20  # bytes; a vocabulary has two


@contextmanager
def open_regular(path: Path, *, follow: bool = False) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """The file for reading and its `fstat`; both stay with this file whatever happens to the path.

    A link, a pipe, a socket, a device or a folder in the file's place is refused without following, blocking or reading
    it. Links among the path's parents are followed.

    Args:
        path: the file.
        follow: also follow a link in the file's own place, as a Hugging Face cache is made of.

    Raises:
        NotFoundError: nothing is there.
        FormatError: something else than a readable regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW) | os.O_NONBLOCK | os.O_CLOEXEC)
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


def read_regular(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """All bytes of a regular file, read once: hash and parse these, never the path again.

    Args:
        path: the file.
        limit: most bytes it may have.
        follow: also follow a link in the file's own place.

    Raises:
        NotFoundError: nothing is there.
        FormatError: no readable regular file, too long, or changing while it is read.
    """
    with open_regular(path, follow=follow) as (file, status):
        if status.st_size > limit:
            raise _bad(path, f"at most {limit} bytes", f"{status.st_size}")
        try:
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise _bad(path, "a readable file", error.strerror or str(error)) from None
    if len(data) != status.st_size:
        raise _bad(path, f"{status.st_size} bytes", "another number: it changed while it was read")
    return data


def read_config(path: Path) -> Any:
    """What a JSON file of a model or of another program says, links followed; nothing of it is checked.

    Raises:
        NotFoundError: nothing is there.
        FormatError: no readable regular file, or too long.
        ValueError: no JSON, or no UTF-8.
    """
    try:
        return json.loads(read_regular(path, _CONFIG_LIMIT, follow=True).decode("utf-8"))
    except RecursionError:
        raise _bad(path, "JSON that is not nested for ever", "more") from None


def check_regular_files(folder: Path, suffixes: tuple[str, ...] = (".json", ".txt", ".model", ".safetensors")) -> None:
    """Refuse a folder in which something else than a file is called like one: a library would wait for it for ever.

    Raises:
        FormatError: a pipe, a socket or a device, behind a link or not.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in suffixes and path.exists() and not (path.is_file() or path.is_dir()):
            raise _bad(path, "a regular file", "a pipe, socket or device")


def _bad(path: Path, expected: str, got: str) -> FormatError:
    return FormatError(f"{path}: expected {expected}, got {got}", path=str(path))
