"""SHA-256 as the registry writes it."""

import hashlib

from rasura.patches.types import Digest

__all__ = ["sha256"]


def sha256(data: bytes) -> Digest:
    """64 lower-case hexadecimal digits."""
    return Digest(hashlib.sha256(data).hexdigest())
