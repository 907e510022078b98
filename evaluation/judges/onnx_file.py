"""The bytes of an ONNX model, looked at before a library runs them: whole protobuf, a graph, nothing outside it.

Field numbers are those of onnx.proto (ONNX 1.x, IR versions 3 and later). Tensors that lie in other files are refused:
the digest of a judge covers one file, and a path out of a model is somebody else's choice of what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import FormatError, NotFoundError

MAX_MODEL_BYTES: Final = 2**31 - 1
"""Protobuf's own limit."""

_MAX_DEPTH: Final = 32  # graphs inside nodes inside graphs
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_LONGEST: Final = 10  # bytes of a varint
_GRAPH, _EXTERNAL, _LOCATION = 7, 13, 14
_TENSOR: Final = "tensor"
# Where tensors can hide: by kind of message, the fields that hold messages, and of which kind.
_INSIDE: Final = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}


def read_model(path: Path) -> bytes:
    """The bytes of an ONNX model that stands by itself.

    Raises:
        NotFoundError: no such file.
        FormatError: too large, no ONNX model, or one that keeps tensors in other files.
    """
    try:
        data = read_regular(path, MAX_MODEL_BYTES, follow=True)
    except NotFoundError:
        raise NotFoundError(
            f"expected an ONNX model at {path}, got no such file", hint="rasura evaluate --judge onnx:FILE:LABELS"
        ) from None
    try:
        found = _check_message(memoryview(data), "model", 0, str(path))
    except (IndexError, ValueError) as error:
        raise FormatError(f"{path}: expected an ONNX model, got other bytes ({error})") from None
    if _GRAPH not in found:
        raise FormatError(f"{path}: expected an ONNX model, got a file without a graph")
    return data


def _check_message(data: memoryview, kind: str, depth: int, path: str) -> set[int]:
    """Walk through a message and what lies in it; the fields that it has."""
    if depth > _MAX_DEPTH * 3:
        raise ValueError("nested too deeply")
    seen: set[int] = set()
    for field, value in _read_fields(data):
        seen.add(field)
        if kind == _TENSOR and (field == _EXTERNAL or (field == _LOCATION and value != 0)):
            raise FormatError(
                f"{path}: expected an ONNX model in one file, got one with tensors in other files",
                hint="save it with save_as_external_data=False",
            )
        inner = _INSIDE.get(kind, {}).get(field)
        if inner is not None:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {field} of a {kind} is no message")
            _check_message(value, inner, depth + 1, path)
    return seen


def _read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; of fixed-width values, the bytes."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise ValueError("field 0")
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _read_varint(data, at)
        elif wire in {_EIGHT, _FOUR}:
            size = 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("cut off")
        yield field, data[at : at + size]
        at += size


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_LONGEST):
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:  # noqa: PLR2004
            return value, at + i + 1
    raise ValueError("a number without an end")
