"""Safetensors, strict on the way in and deterministic on the way out.

A file is eight bytes of little-endian length, that many bytes of JSON (tensor name → dtype, shape, byte range), then
the raw tensors. The upstream reader takes the last of two equal names, ignores unknown fields, and needs a minute and
gigabytes for a header of a million tensors; its writer puts the metadata in random order. So the header is read here,
in plain Python, within limits, before any tensor exists; and the bytes are written here, one spelling per content.

Not here: what a patch must contain. Headers cost no torch import; tensors do.
"""

import io
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields, JsonValue
from rasura.patches._io.files import read_regular
from rasura.patches._io.tensor_bytes import (
    DTYPES,
    RawValue,
    Storable,
    as_tensor,
    count_bytes,
    digest_tensor,
    digest_tensor_set,
    dtype_name,
    encode_raw_bytes,
    is_finite,
    torch_dtype,
)
from rasura.patches.errors import FormatError, NotFiniteError

if TYPE_CHECKING:
    import torch  # reading a header needs none

__all__ = [
    "CHECKPOINT_LIMITS",
    "PATCH_LIMITS",
    "Header",
    "Limits",
    "TensorInfo",
    "decode",
    "decode_raw",
    "digest_tensor",
    "digest_tensor_set",
    "dtype_name",
    "encode",
    "encode_raw_bytes",
    "read_header",
    "read_regular",
    "torch_dtype",
]

_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost its reader, checked before the reading."""

    header_bytes: int = 4 * _MIB
    """Bytes of JSON. Stable Diffusion XL's UNet needs 0.2 MiB, the training logs in LoRA files 1 MiB."""

    tensors: int = 20_000
    """Tensors. A single-file Stable Diffusion XL checkpoint has 2,515."""

    file_bytes: int = 512 * _MIB
    """Bytes of the whole file. A patch has kilobytes to a few megabytes; a float64 basis of width 4096 has 128 MiB."""


PATCH_LIMITS: Final = Limits()
"""For the files of a patch, which are read into memory whole."""

CHECKPOINT_LIMITS: Final = Limits(header_bytes=2**24, file_bytes=2**40)
"""For the weights of models, of which only the header is read; people keep thumbnails and training records in it."""

_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,512}")  # ASCII, so that no two spellings of one name exist
_RANK: Final = 8  # dimensions; a convolution over video has five
_EXTENT: Final = canonical_json.MAX_INTEGER


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its file's header describes it."""

    name: str
    dtype: str
    """Safetensors' name of the element type, such as "F32"."""
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the header's end."""
    stop: int
    """One past the last byte, counted from the header's end."""


@dataclass(frozen=True, slots=True)
class Header:
    """All that a file says of itself, checked against the file's size."""

    data_start: int
    """Byte of the file at which tensor bytes begin: a tensor lies at `data_start + start`."""
    tensors: tuple[TensorInfo, ...]
    """In the order of their bytes, which they fill without holes."""
    metadata: Mapping[str, str]
    """Free texts. Never a source of truth: nothing protects them from being ignored or rewritten by other tools."""


def read_header(file: BinaryIO, size: int, *, what: str, limits: Limits) -> Header:
    """The header of a safetensors file of `size` bytes, read from its beginning.

    Args:
        file: open for reading, seekable.
        size: bytes of the whole file (`fstat`).
        what: what the file is, for messages.
        limits: most it may cost.

    Raises:
        FormatError: not a safetensors file, or one that breaks the format or the limits.
    """
    if size > limits.file_bytes:
        raise _bad(what, f"at most {limits.file_bytes} bytes", f"{size}")
    file.seek(0)
    length = int.from_bytes(_read(file, 8, what), "little")
    most = min(limits.header_bytes, size - 8)
    if not len("{}") <= length <= most:
        hint = "save the file again without its metadata" if limits.header_bytes < length <= size - 8 else ""
        raise _bad(what, f"a header of 2 to {most} bytes", f"{length}", hint)
    text = _read(file, length, what)
    # The format: starts with `{`, may end in spaces; upstream also takes spaces before and any white space after.
    if not text.startswith(b"{") or not text.rstrip(b" ").endswith(b"}"):
        raise _bad(what, "a header from { to } and then spaces", ascii(text[:8]) + "…" + ascii(text[-8:]))
    fields = Fields.of(canonical_json.parse(text, what=f"{what}: header", limit=limits.header_bytes), f"{what}: header")
    names = [name for name in fields.names() if name != "__metadata__"]
    metadata = {}
    if fields.has("__metadata__"):
        texts = fields.fields("__metadata__")
        metadata = {key: texts.text(key, limit=sys.maxsize) for key in texts.names()}
    if len(names) > limits.tensors:
        raise _bad(what, f"at most {limits.tensors} tensors", f"{len(names)}")
    _check_names(names, what)
    tensors = tuple(sorted((_tensor_info(fields, name) for name in names), key=lambda t: (t.start, t.stop, t.name)))
    position = 0
    for info in tensors:
        if info.start != position:
            flaw = "a hole" if info.start > position else "an overlap"
            raise _bad(f"{what}: tensor {info.name}", f"bytes from {position}", f"{info.start}: {flaw}")
        position = info.stop
    if position != size - 8 - length:
        raise _bad(what, f"{position} bytes of tensors", f"{size - 8 - length}")
    return Header(8 + length, tensors, metadata)


def encode(tensors: Mapping[str, Storable], metadata: Mapping[str, str] | None = None) -> bytes:
    """The one spelling of these tensors: wider dtypes first (so that each is aligned), then names by code point.

    With at most one key of metadata and one dtype of each width, these are the bytes that safetensors 0.8 writes.

    Raises:
        FormatError: a name or dtype that `decode` would refuse, or metadata that are no texts.
        NotFiniteError: NaN or infinity.
    """
    header, order = encode_header(tensors, metadata)
    for name in order:
        if not is_finite(tensors[name]):
            raise NotFiniteError(f"tensor {name}: expected finite numbers, got NaN or infinity", tensor=name)
    return b"".join([header, *(encode_raw_bytes(tensors[name]) for name in order)])


def encode_header(
    tensors: Mapping[str, Storable], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, Sequence[str]]:
    """What `encode` writes before the elements, and the order in which they follow.

    Raises:
        FormatError: see `encode`.
    """
    _check_names(tensors, "tensors to write")
    order = sorted(tensors, key=lambda name: (-DTYPES[dtype_name(tensors[name].dtype)][1], name))
    header: dict[str, JsonValue] = {}
    if metadata:
        canonical_json.dumps(metadata)  # refuses what is no Unicode text
        for key in metadata:
            if not isinstance(metadata[key], str):
                raise _bad(f"metadata {key}", "a text", type(metadata[key]).__name__)
        header["__metadata__"] = {key: metadata[key] for key in sorted(metadata)}
    position = 0
    for name in order:
        dtype, stop = dtype_name(tensors[name].dtype), position + count_bytes(tensors[name])
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def decode(data: bytes, *, what: str, limits: Limits, dtypes: frozenset[str]) -> dict[str, "torch.Tensor"]:
    """The tensors of these very bytes, on the CPU, writable, sharing memory with nothing; see `decode_raw`."""
    found = decode_raw(data, what=what, limits=limits, dtypes=dtypes)
    return {name: as_tensor(value) for name, value in found.items()}


def decode_raw(data: bytes, *, what: str, limits: Limits, dtypes: frozenset[str]) -> dict[str, RawValue]:
    """As `decode`, as bytes.

    Args:
        data: the whole file; hash it before or after, it is what was read.
        what: what the file is, for messages.
        limits: most it may cost.
        dtypes: safetensors names of the element types that may occur.

    Raises:
        FormatError: any breach of format or limits, another dtype, NaN or infinity.
    """
    header = read_header(io.BytesIO(data), len(data), what=what, limits=limits)
    found: dict[str, RawValue] = {}
    for info in header.tensors:
        if info.dtype not in dtypes:
            raise _bad(f"{what}: tensor {info.name}", f"dtype {' or '.join(sorted(dtypes))}", info.dtype)
        piece = bytearray(data[header.data_start + info.start : header.data_start + info.stop])
        found[info.name] = RawValue(info.dtype, info.shape, piece)
        if not is_finite(found[info.name]):
            raise _bad(f"{what}: tensor {info.name}", "finite numbers", "NaN or infinity")
    return found


def _read(file: BinaryIO, count: int, what: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise _bad(what, f"{count} bytes of length and header", f"{len(data)}")
    return data


def _check_names(names: Iterable[str], what: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name) or name == "__metadata__":
            raise _bad(what, f"tensor names like {_NAME.pattern}", ascii(name[:60]))
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise _bad(what, "tensor names that are no path upwards", ascii(name[:60]))
        # A case-insensitive reader would take one for the other.
        if (twin := seen.setdefault(name.lower(), name)) != name:
            raise _bad(what, "tensor names that differ in more than case", f"{twin} and {name}")


def _tensor_info(header: Fields, name: str) -> TensorInfo:
    fields = header.fields(name)
    dtype = fields.choice("dtype", DTYPES)
    shape = fields.integers("shape", _RANK, 0, _EXTENT)
    offsets = fields.integers("data_offsets", 2, 0, _EXTENT)
    fields.done()
    item = DTYPES[dtype][1]
    # A shape with a zero may hide factors that overflow in other readers, so zeros count as ones in the bound.
    if math.prod(max(extent, 1) for extent in shape) * item > _EXTENT:
        raise _bad(f"tensor {name}", f"a shape of at most {_EXTENT} bytes", f"{list(shape)}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * item:  # noqa: PLR2004  # begin and end
        raise _bad(f"tensor {name}", f"a range of {math.prod(shape) * item} bytes", f"data_offsets {list(offsets)}")
    return TensorInfo(name, dtype, shape, offsets[0], offsets[1])


def _bad(what: str, expected: str, got: str, hint: str = "") -> FormatError:
    return FormatError(f"{what}: expected {expected}, got {got}", hint=hint, what=what)
