"""Base64 with one spelling for each value, so that equal documents have equal bytes (RFC 4648 §4 and §3.5)."""

import base64
import binascii

__all__ = ["decode_base64", "encode_base64"]


def encode_base64(data: bytes) -> str:
    """With padding, without line breaks."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes | None:
    """The bytes of such a text; None of every other one: unused bits that are not zero, missing padding, spaces."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return data if encode_base64(data) == text else None
