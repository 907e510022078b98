"""Content-addressed files: `blobs/ab/cdef…` holds the bytes whose SHA-256 is `abcdef…`.

A name is a promise about the bytes, kept on both sides: what is written is hashed first, and what is read is hashed
again, so a caller never sees bytes that are not those it asked for. A blob is never overwritten.
"""

import os
from pathlib import Path
from typing import Final

from rasura.patches.errors import DigestMismatchError, NotFoundError
from rasura.patches.types import Digest
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.durable_files import make_folder, read_regular, sync_folder, temporary, translated
from rasura.registry._storage.validation import check_digest

__all__ = ["MAX_BLOB_BYTES", "BlobStore"]

MAX_BLOB_BYTES: Final = 2 * 1024**3
"""Most bytes of one blob; a patch has a few megabytes."""

_READ_ONLY: Final = 0o444


class BlobStore:
    """A folder of blobs. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
        if path.exists():
            self.read(digest)
            return digest
        make_folder(path.parent)
        with translated(f"store blob {digest}"), temporary(path.parent, data, mode=_READ_ONLY) as written:
            _place(written, path)
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
            data = read_regular(path, limit=limit, what=f"blob {digest[:12]}")
        except NotFoundError as error:
            raise NotFoundError(error.message, hint="rasura pull", **error.details) from None
        got = sha256(data)
        if got != digest:
            raise DigestMismatchError(f"blob: expected bytes with SHA-256 {digest}, got {got} in {path}")
        return data


def _place(written: Path, path: Path) -> None:
    """Gives the temporary file its name without ever replacing one; a twin that came first has the same bytes."""
    try:
        os.link(written, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links; both writers have the same bytes
        written.replace(path)
