"""What can be computed again: `cache/ab/cdef…` holds a result under the SHA-256 of everything that decides it.

A file is the SHA-256 of the bytes that follow, and the bytes. Whatever cannot be read or is damaged counts as missing
and is written anew, and what cannot be written is not kept: nobody depends on it, so nothing here raises. Whoever may
write to this folder may write to the registry's.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from rasura.patches.errors import RasuraError
from rasura.patches.types import Digest
from rasura.registry._storage.files.durable_files import make_folder, read_own_file, temporary

__all__ = ["Cache"]

_HEAD: Final = hashlib.sha256().digest_size
_MAX_BYTES: Final = 1 << 30
_PRIVATE: Final = 0o600


class Cache:
    """A folder of results. Several processes, and several registries, may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: Digest) -> bytes | None:
        """What was kept under this key, or None; reading it counts as use."""
        path = self._path(key)
        try:
            data = read_own_file(path, limit=_MAX_BYTES, what="cache")
        except RasuraError:
            return None
        body = memoryview(data)[_HEAD:]
        if hashlib.sha256(body).digest() != data[:_HEAD]:
            return None
        with suppress(OSError):
            os.utime(path)
        return bytes(body)

    def write(self, key: Digest, data: bytes) -> None:
        """Keep it, if that can be done; what lay there is replaced."""
        path = self._path(key)
        with suppress(OSError, RasuraError):
            make_folder(path.parent, private=True)
            with temporary(path.parent, hashlib.sha256(data).digest() + data, mode=_PRIVATE) as written:
                written.replace(path)

    def unused(self, before: float) -> Iterator[tuple[Path, int]]:
        """The files that nobody used since, in seconds since 1970, and their bytes."""
        for path in sorted(self.folder.glob("[0-9a-f][0-9a-f]/*")):
            with suppress(OSError):
                status = path.lstat()
                if status.st_mtime < before:
                    yield path, status.st_size

    def _path(self, key: Digest) -> Path:
        return self.folder / key[:2] / key[2:]
