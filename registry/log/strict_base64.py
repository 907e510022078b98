"""Base64 with one spelling for each value, so that equal documents have equal bytes."""

import base64
import binascii

from rasura.patches.errors import AuditError

__all__ = ["from_base64", "to_base64"]


def to_base64(data: bytes) -> str:
    """RFC 4648 §4, with padding."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, what: str, *, size: int | None = None) -> bytes:
    """The bytes of such a text; `size` is how many there must be.

    Raises:
        AuditError: it is none, or of another size.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        data = None
    if data is None or to_base64(data) != text:
        raise AuditError(f"{what}: expected base64, got {text[:40]!r}")
    if size is not None and len(data) != size:
        raise AuditError(f"{what}: expected {size} bytes in base64, got {len(data)}")
    return data
