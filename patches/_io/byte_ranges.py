"""Byte ranges of files: read, digest, write, and make durable. Nothing here knows what the bytes mean."""

import errno
import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from rasura.patches._io.parallel import count_at_once
from rasura.patches.errors import HostError
from rasura.patches.types import Digest

__all__ = [
    "NewFiles",
    "copy_known",
    "copy_range",
    "digest_range",
    "digest_ranges",
    "digest_written",
    "read_into",
    "read_range",
    "read_whole",
    "replace_file",
    "restore_range",
    "sync_folder",
    "write_range",
]

_CHUNK: Final = 4 * 2**20  # bytes; what one read holds in memory
_SECTOR: Final = 4096  # bytes; where reads past memory begin and end, on any medium
_STRAIGHT: Final = 2**20  # bytes; what one of them holds in memory
_ROOM: Final = 2**18  # bytes; stays in the processor's cache between reading and hashing


def read_range(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` to `stop` in pieces.

    Raises:
        HostError: the file ends before.
        OSError: reading failed.
    """
    while start < stop:
        piece = os.pread(descriptor, min(_CHUNK, stop - start), start)
        if not piece:
            raise _too_short(start, stop)
        yield piece
        start += len(piece)


def read_whole(descriptor: int, start: int, stop: int) -> bytearray:
    """As `read_range`, in one piece and without copying it."""
    found = bytearray(stop - start)
    read_into(memoryview(found), descriptor, start)
    return found


def read_into(room: memoryview, descriptor: int, start: int) -> None:
    """As `read_range`, as many bytes as there is room for."""
    stop = start + len(room)
    while start < stop:
        got = os.preadv(descriptor, [room], start)
        if not got:
            raise _too_short(start, stop)
        start, room = start + got, room[got:]


def _too_short(start: int, stop: int) -> HostError:
    return HostError(f"expected {stop - start} more bytes at {start}, got the file's end")


def digest_range(descriptor: int, start: int, stop: int) -> Digest:
    """SHA-256 of the bytes from `start` to `stop`; raises as `read_range`."""
    state = hashlib.sha256()
    room = memoryview(bytearray(min(_ROOM, stop - start)))  # fresh memory for each piece would take as long as the hash
    while start < stop:
        got = os.preadv(descriptor, [room[: stop - start]], start)
        if not got:
            raise _too_short(start, stop)
        state.update(room[:got])
        start += got
    return Digest(state.hexdigest())


def copy_range(source: int, start: int, stop: int, target: int, at: int) -> Digest:
    """Write the bytes from `start` to `stop` of one file into another from `at` on; SHA-256 of what passed.

    Raises:
        HostError: the source ends before.
        OSError: reading or writing failed; some bytes may have been written.
    """
    state = hashlib.sha256()
    room = memoryview(bytearray(min(_ROOM, stop - start)))
    while start < stop:
        got = os.preadv(source, [room[: stop - start]], start)
        if not got:
            raise _too_short(start, stop)
        state.update(room[:got])
        write_range(target, at, [room[:got]])
        start, at = start + got, at + got
    return Digest(state.hexdigest())


def copy_known(source: int, start: int, known: memoryview, target: int, at: int) -> bool:
    """Write bytes that are known into a file from `at` on; whether another one still has them from `start` on.

    Raises:
        HostError: the source ends before.
        OSError: reading or writing failed; some bytes may have been written.
    """
    for first in range(0, len(known), _ROOM):
        piece = known[first : first + _ROOM]
        if read_whole(source, start + first, start + first + len(piece)) != piece:
            return False
        write_range(target, at + first, [piece])
    return True


def digest_ranges(ranges: Iterable[tuple[int, int, int]]) -> list[Digest]:
    """`digest_range` of each descriptor, start and stop, several at a time; raises as `read_range`."""
    listed = list(ranges)
    if hasattr(os, "posix_fadvise"):  # so that the medium is not asked for one piece after the other
        for descriptor, start, stop in listed:
            os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_WILLNEED)
    return count_at_once(lambda each: digest_range(*each), listed)


def digest_written(ranges: Iterable[tuple[int, int, int]]) -> list[Digest]:
    """As `digest_ranges`, of what the medium has: not of what memory holds of a file, where the system can tell.

    What was written must be durable before.
    """
    listed = list(ranges)
    with ExitStack() as opened:
        past = {descriptor: opened.enter_context(_past_memory(descriptor)) for descriptor, _, _ in listed}
        rooms = _Rooms()
        return count_at_once(lambda each: _digest_written(each, rooms.room if past[each[0]] else None), listed)


class _Rooms(threading.local):
    """Each thread's memory for reads past what the system holds: whole pages, fresh ones once a thread."""

    def __init__(self) -> None:
        self.room = memoryview(mmap.mmap(-1, _STRAIGHT))


@contextmanager
def _past_memory(descriptor: int) -> Iterator[bool]:
    """Have reads come from the medium inside the block; whether they do."""
    if not hasattr(os, "O_DIRECT"):
        yield False
        return
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:  # not on this file system
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _digest_written(which: tuple[int, int, int], room: memoryview | None) -> Digest:
    if room is not None:
        try:
            return _digest_straight(*which, room)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a medium that is read in longer pieces than ours
                raise
    descriptor, start, stop = which
    if hasattr(os, "posix_fadvise"):  # a wish that any system may ignore
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_DONTNEED)
    return digest_range(descriptor, start, stop)


def _digest_straight(descriptor: int, start: int, stop: int, room: memoryview) -> Digest:
    state = hashlib.sha256()
    at, end = start - start % _SECTOR, stop + -stop % _SECTOR
    while at < stop:
        got = os.preadv(descriptor, [room[: end - at]], at)
        if not got:
            raise _too_short(at, stop)
        state.update(room[max(start - at, 0) : min(got, stop - at)])
        at += got
    return Digest(state.hexdigest())


def write_range(descriptor: int, start: int, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write the pieces one after the other from `start` on.

    Raises:
        OSError: writing failed; some bytes may have been written.
    """
    for piece in pieces:
        left = memoryview(piece)
        while left:
            written = os.pwrite(descriptor, left, start)
            start, left = start + written, left[written:]


def restore_range(descriptor: int, start: int, pieces: Iterable[bytes]) -> None:
    """As `write_range`, but writes nothing outside of the first and the last byte that differ in each piece.

    Where writing failed once (a bad sector, a quota), it would fail again; the bytes there are still the old ones.
    """
    for piece in pieces:
        present = b"".join(read_range(descriptor, start, start + len(piece)))
        first = _common(present, piece)
        last = len(piece) - _common(present[first:][::-1], piece[first:][::-1])
        write_range(descriptor, start + first, [piece[first:last]])
        start += len(piece)


def _common(left: bytes, right: bytes) -> int:
    """Length of the common prefix of two texts of one length, by bisection."""
    equal, unequal = 0, len(left) + 1
    while unequal - equal > 1:
        middle = (equal + unequal) // 2
        same = left[equal:middle] == right[equal:middle]
        equal, unequal = (middle, unequal) if same else (equal, middle)
    return equal


def replace_file(path: Path, pieces: Iterable[bytes], *, mode: int = 0o644) -> None:
    """Make `path` hold these bytes, durably: afterwards it holds all of them, or what it held before.

    The folder's own entry is durable only after `sync_folder(path.parent)`.

    Args:
        path: the file.
        pieces: its bytes.
        mode: who may read and write it, less what the umask takes.

    Raises:
        OSError: writing failed; `path` is as it was.
    """
    with NewFiles() as files:
        files.begin(path, pieces, mode=mode)
        files.put(path)


@dataclass(slots=True, eq=False)
class NewFiles(AbstractContextManager["NewFiles"]):
    """Files that are replaced together: `begin` and fill all of them, then `put` each; threads may do either at once.

    A medium that is given many files before anybody waits for one makes them durable in fewer goes. What was not put
    when the block ends is as it was.
    """

    _open: dict[Path, int] = field(default_factory=dict, init=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing of those that were not put."""
        while self._open:
            path, descriptor = self._open.popitem()
            os.close(descriptor)
            _beside(path).unlink(missing_ok=True)

    def begin(self, path: Path, pieces: Iterable[bytes] = (), *, mode: int = 0o644) -> int:
        """Write these bytes beside a path (see `replace_file`); a descriptor, by which more may be written."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._open[path] = os.open(_beside(path), flags, mode)
        write_range(self._open[path], 0, pieces)
        return self._open[path]

    def put(self, path: Path) -> None:
        """Make what was written durable, and put it at its path."""
        os.fsync(self._open[path])
        os.close(self._open.pop(path))
        _beside(path).rename(path)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (new names, removed names) durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
