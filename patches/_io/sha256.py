"""SHA-256 of bytes, as everything here writes it."""

from __future__ import annotations

import hashlib

from rasura.patches.types import Digest


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """64 lower-case hexadecimal digits."""
    return Digest(hashlib.sha256(data).hexdigest())
