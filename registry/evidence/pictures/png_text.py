"""One text chunk of ours in a PNG (PNG 3rd edition §11.3.3.2): put in before the end, taken out again, byte for byte.

    length (4)  "tEXt"  keyword 0x00 base64  CRC-32 (4)

The text is base64, so that it is Latin-1 whatever it says. A reader takes exactly one such chunk, in its one spelling;
what is left is the picture as it was before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import FormatError

__all__ = ["is_png", "put_text", "take_text"]

_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_AROUND: Final = 12  # length, type and CRC of a chunk
_HEAD: Final = 8  # length and type of a chunk
_TEXT: Final = b"tEXt"
_END: Final = b"IEND"
_WHAT: Final = "picture"


def is_png(data: bytes) -> bool:
    """Whether it begins as one."""
    return data.startswith(_MAGIC)


def put_text(picture: bytes, keyword: str, text: bytes) -> bytes:
    """The picture with the text, in front of its last chunk.

    Raises:
        FormatError: no PNG, or one with a text of this keyword.
    """
    chunks = tuple(_chunks(picture))
    if any(_is_ours(chunk, keyword) for _, chunk in chunks):
        raise FormatError(f"{_WHAT}: expected one without a {keyword}, got one with it")
    start, _ = chunks[-1]
    return picture[:start] + _make(keyword, text) + picture[start:]


def take_text(data: bytes, keyword: str) -> tuple[bytes, bytes]:
    """The picture without the text, and the text.

    Raises:
        FormatError: no PNG, none or several texts of this keyword, or one in another spelling.
    """
    found = [(start, chunk) for start, chunk in _chunks(data) if _is_ours(chunk, keyword)]
    if len(found) != 1:
        raise FormatError(f"{_WHAT}: expected one {keyword} in it, got {len(found) or 'none'}")
    ((start, chunk),) = found
    text = decode_base64(chunk[_HEAD + len(keyword) + 1 : -4].decode("ascii", "replace"))
    if text is None or _make(keyword, text) != chunk:
        raise FormatError(f"{_WHAT}: its {keyword} was changed")
    return data[:start] + data[start + len(chunk) :], text


def _make(keyword: str, text: bytes) -> bytes:
    body = _TEXT + keyword.encode("ascii") + b"\0" + encode_base64(text).encode("ascii")
    return (len(body) - len(_TEXT)).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _is_ours(chunk: bytes, keyword: str) -> bool:
    return chunk[4:].startswith(_TEXT + keyword.encode("ascii") + b"\0")


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every chunk with its place; the last is the end, and nothing follows it."""
    at = len(_MAGIC)
    if not is_png(data):
        raise FormatError(f"{_WHAT}: expected a PNG, got something else", hint="keep the receipt beside it")
    chunk = b""
    while at < len(data) and chunk[4:_HEAD] != _END:
        size = int.from_bytes(data[at : at + 4], "big") + _AROUND
        chunk = data[at : at + size]
        yield at, chunk
        at += size
    if at != len(data) or chunk[4:_HEAD] != _END:
        raise FormatError(f"{_WHAT}: expected a whole PNG, got one that is cut or has something behind it")
