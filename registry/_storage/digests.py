"""SHA-256 as the registry writes it."""

from rasura.patches._io.sha256 import digest_of as sha256

__all__ = ["sha256"]
