"""The pieces of a SentencePiece model, read without its library (protobuf)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["read_pieces", "take_model"]


def take_model(tokenizer: Any) -> bytes | None:
    """The SentencePiece model that a tokenizer written in Python reads with (ChatGLM's); None for any other."""
    processor = getattr(getattr(tokenizer, "tokenizer", None), "sp_model", None)
    return None if processor is None else bytes(processor.serialized_model_proto())


def read_pieces(data: bytes) -> Iterator[str]:
    """The pieces of a SentencePiece model: field 1 of the message, and in each field 1 again (protobuf)."""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            yield next((text.decode("utf-8") for n, text in _fields(value) if n == 1 and isinstance(text, bytes)), "")


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: bytes | int
        match key & 7:
            case 0:
                value, at = _varint(data, at)
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case kind:
                size = {1: 8, 5: 4}.get(kind, len(data))
                value, at = data[at : at + size], at + size
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:  # noqa: PLR2004  # the last byte of a number has no high bit
            break
    return value, at
