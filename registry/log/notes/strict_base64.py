"""Base64 in documents of the log: one spelling for each value, or no document."""

from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import AuditError

__all__ = ["encode_base64", "read_base64"]


def read_base64(text: str, what: str, *, size: int | None = None) -> bytes:
    """The bytes of such a text; `size` is how many there must be.

    Raises:
        AuditError: it is none, or of another size.
    """
    data = decode_base64(text)
    if data is None:
        raise AuditError(f"{what}: expected base64, got {text[:40]!r}")
    if size is not None and len(data) != size:
        raise AuditError(f"{what}: expected {size} bytes in base64, got {len(data)}")
    return data
