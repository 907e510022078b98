"""Opening weight files: who may be read, who may be written, and whether they still are what was described."""

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DriftError, HostError, UnsupportedHostError
from rasura.patches.types import SHORT, Digest

__all__ = ["FileIdentity", "WeightFiles", "open_weights"]


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What a weight file must still be when bytes at fixed places of it are read or written."""

    size: int
    """Bytes of the whole file."""
    data_start: int
    """Byte at which tensor bytes begin."""
    header: Digest
    """SHA-256 of all bytes before `data_start`."""


@dataclass(slots=True, eq=False)
class WeightFiles(AbstractContextManager["WeightFiles"]):
    """The weight files of one folder, each opened when first asked for and closed together.

    A file whose size or header is not what its identity says is refused: fixed places in it would mean other tensors.
    """

    folder: Path
    identities: Mapping[str, FileIdentity]
    _: KW_ONLY
    writable: bool = False
    _open: dict[str, int] = field(default_factory=dict, init=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def descriptor(self, file: str) -> int:
        """The open file.

        Raises:
            UnsupportedHostError: it cannot be written through, see `open_weights`.
            DriftError: it was replaced by another file.
        """
        if file not in self._open:
            self._open[file] = found = open_weights(self.folder, file, writable=self.writable)
            expected, size = self.identities[file], os.fstat(found).st_size
            header = digest_of(os.pread(found, expected.data_start, 0))
            if (size, header) != (expected.size, expected.header):
                raise DriftError(
                    f"{self.folder / file}: expected {expected.size} bytes with header {expected.header[:SHORT]}…, "
                    f"got {size} bytes with header {header[:SHORT]}…: another file took its place",
                    file=file,
                )
        return self._open[file]

    def sync(self) -> None:
        """Make all that was written durable."""
        for descriptor in self._open.values():
            os.fsync(descriptor)


def open_weights(folder: Path, file: str, *, writable: bool = False) -> int:
    """A descriptor of one weight file.

    For writing, no link is followed anywhere below `folder` and a file with a second name is refused: the bytes behind
    either may belong to somebody else's model. So may a file that is read-only, for root too.

    Raises:
        UnsupportedHostError: a link, a file with several names, a read-only one, or no regular file.
        HostError: it cannot be opened.
    """
    try:
        descriptor = _open_beneath(folder, file) if writable else os.open(folder / file, _FLAGS | os.O_RDONLY)
    except OSError as error:
        raise _cannot_open(folder, file, error) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (writable and status.st_nlink > 1):
        os.close(descriptor)
        got = f"{status.st_nlink} names for it" if stat.S_ISREG(status.st_mode) else "a folder, pipe or device"
        raise _unwritable(folder, file, f"expected a regular file with one name, got {got}")
    if writable and not status.st_mode & _ANY_WRITER:
        os.close(descriptor)
        raise _unwritable(folder, file, "expected a writable file, got one that is read-only for everybody")
    return descriptor


_ANY_WRITER: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH  # the system lets root write, whatever the mode says
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe must not wait for its other end


def _open_beneath(folder: Path, file: str) -> int:
    """Open for reading and writing, one path component after the other, none of them a link."""
    *parents, name = file.split("/")
    directory = os.open(folder, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            below = os.open(parent, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.open(name, _FLAGS | os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _cannot_open(folder: Path, file: str, error: OSError) -> HostError:
    if any((folder / part).is_symlink() for part in (file, file.split("/", 1)[0])):
        return _unwritable(folder, file, "expected a file of the model's own, got a link")
    if isinstance(error, PermissionError) or error.errno in _READ_ONLY:
        return _unwritable(folder, file, f"expected a writable file, got {error.strerror}")
    return HostError(f"{folder / file}: expected a readable file, got {error.strerror}", errno=error.errno)


_READ_ONLY: Final = frozenset({errno.EROFS, errno.ETXTBSY})


def _unwritable(folder: Path, file: str, message: str) -> UnsupportedHostError:
    if "/" in file:  # a folder's weights lie in its components
        model, out, where = folder, "DIR", f"{folder}: {file}"
    else:
        model, out, where = folder / file, "FILE", str(folder / file)
    return UnsupportedHostError(f"{where}: {message}", hint=f"write a copy instead: --out {out}", folder=str(model))
