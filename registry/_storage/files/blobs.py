"""Content-addressed files: `blobs/ab/cdef…` holds the bytes whose SHA-256 is `abcdef…`.

A name is a promise about the bytes, kept on both sides: what is written is hashed first, and what is read is hashed
again, so a caller never sees bytes that are not those it asked for. A blob is never overwritten.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches.errors import DigestMismatchError, NotFoundError
from rasura.patches.types import Digest
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.files.durable_files import make_folder, read_own_file, sync_folder, temporary, translated
from rasura.registry._storage.records.validation import check_digest

__all__ = ["MAX_BLOB_BYTES", "BlobInfo", "BlobStore"]

MAX_BLOB_BYTES: Final = 2 * 1024**3
"""Most bytes of one blob; a patch has a few megabytes."""

_READ_ONLY: Final = 0o444
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_FILE: Final = re.compile(r"[0-9a-f]{62}")
_GOING: Final = ".going-"


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob without its bytes.

    Attributes:
        digest: its name.
        size: bytes.
        stored_at: when it was stored last, in seconds since 1970; storing it again counts.
    """

    digest: Digest
    size: int
    stored_at: float


@dataclass(frozen=True, slots=True)
class BlobStore:
    """A folder of blobs. Several processes may use it at once."""

    folder: Path

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, if it does. For looking only: bytes from here are not verified.

        Raises:
            InputError: no digest.
        """
        check_digest("blob", digest)
        return self.folder / digest[:2] / digest[2:]

    def has(self, digest: Digest) -> bool:
        """Whether there is such a blob; its bytes are not looked at."""
        return self.path(digest).is_file()

    def put(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Stores the bytes and gives their digest; storing them again changes nothing.

        Raises:
            DigestMismatchError: the bytes are not those of `expected`, or a damaged blob lies where they belong.
            RegistryError: disk full, read-only, I/O error; nothing was changed.
        """
        digest = sha256(data)
        if expected is not None and digest != expected:
            raise DigestMismatchError(f"blob: expected bytes with SHA-256 {expected}, got {digest}")
        path = self.path(digest)
        there = False
        with suppress(NotFoundError):  # which it may become at any moment, where nothing refers to it
            self.read(digest)
            there = True
        if there and _renew(path):
            return digest
        make_folder(path.parent)
        with translated(f"store blob {digest}"), temporary(path.parent, data, mode=_READ_ONLY) as written:
            _place(written, path, renew=there)
            sync_folder(path.parent)
            sync_folder(self.folder)
        return digest

    def read(self, digest: Digest, *, limit: int = MAX_BLOB_BYTES) -> bytes:
        """The bytes, verified.

        Raises:
            NotFoundError: no such blob.
            DigestMismatchError: the file was changed.
            RegistryError: unreadable, no regular file, or longer than `limit` bytes.
        """
        path = self.path(digest)
        try:
            data = read_own_file(path, limit=limit, what=f"blob {digest[:12]}")
        except NotFoundError as error:
            raise NotFoundError(error.message, hint="rasura pull", **error.details) from None
        got = sha256(data)
        if got != digest:
            raise DigestMismatchError(f"blob: expected bytes with SHA-256 {digest}, got {got} in {path}")
        return data

    def every(self) -> Iterator[BlobInfo]:
        """All blobs, in no order; bytes are not looked at.

        Raises:
            RegistryError: a folder cannot be read.
        """
        with translated(f"read {self.folder}"):
            folders = [f for f in self.folder.iterdir() if _FOLDER.fullmatch(f.name)] if self.folder.is_dir() else []
            for folder in folders:
                for path in folder.iterdir():
                    with suppress(FileNotFoundError):
                        if path.name.startswith(_GOING):  # whoever was removing it died
                            _put_back(path, path.with_name(path.name.removeprefix(_GOING)))
                        if _FILE.fullmatch(path.name):
                            found = path.lstat()
                            yield BlobInfo(Digest(folder.name + path.name), found.st_size, found.st_mtime)

    def discard(self, digest: Digest, *, before: float) -> bool:
        """Removes a blob that was stored last before this time; False where it is newer or gone.

        Safe beside writers who store the same bytes now: it is taken out of sight before its time is looked at, so
        whoever renewed it earlier is seen, and whoever comes later finds nothing and writes it anew.

        Raises:
            RegistryError: it cannot be removed.
        """
        path = self.path(digest)
        going = path.with_name(f"{_GOING}{path.name}")
        with translated(f"remove blob {digest}"):
            try:
                if path.lstat().st_mtime >= before:
                    return False
                path.rename(going)
                if going.lstat().st_mtime >= before:
                    _put_back(going, path)
                    return False
                going.unlink()
            except FileNotFoundError:  # somebody else removes it
                return False
            sync_folder(path.parent)
        return True


def _renew(path: Path) -> bool:
    """Say that the blob was stored now; False where it has just gone, or is another user's."""
    try:
        os.utime(path)
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _put_back(going: Path, path: Path) -> None:
    _place(going, path, renew=False)
    going.unlink(missing_ok=True)


def _place(written: Path, path: Path, *, renew: bool) -> None:
    """Gives the temporary file its name; a twin that came first has the same bytes, and is replaced to renew it."""
    if renew:
        written.replace(path)
        return
    try:
        os.link(written, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links; both writers have the same bytes
        written.replace(path)
