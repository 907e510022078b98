"""What a tensor is as bytes: its dtype's name, its raw little-endian elements, and the digests over them."""

import itertools
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from rasura.patches._io import canonical_json
from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, UnsupportedHostError
from rasura.patches.types import Digest

if TYPE_CHECKING:
    import torch  # the light room imports this file for names and digests

K = TypeVar("K")


@dataclass(frozen=True, slots=True, eq=False)
class RawValue:
    """One tensor as a file holds it, for whoever only moves it about: that needs no torch.

    Attributes:
        dtype: safetensors' name of its element type.
        shape: its extents.
        data: its elements in row-major order, little-endian; not changed once the digest is known.
        digest: their SHA-256, if whoever made the value computed it and saw that all are finite.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytearray | memoryview
    digest: Digest | None = None


Storable: TypeAlias = "torch.Tensor | RawValue"
"""What can be hashed and written as it is."""

DTYPES: Final[Mapping[str, tuple[str, int]]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "C64": ("complex64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
}
"""Safetensors' names of the element types of whole bytes, with torch's name and the bytes of one element."""
_EXPONENTS: Final[Mapping[str, tuple[int, int]]] = {
    "F64": (8, 0x7FF0_0000_0000_0000),
    "F32": (4, 0x7F80_0000),
    "C64": (4, 0x7F80_0000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F8_E5M2": (1, 0x7C),
}
"""Of IEEE 754 types: the bytes of a number, and the exponent that is infinity's and every NaN's alone."""
_NO_NUMBER: Final[Mapping[str, tuple[int, ...]]] = {
    "F8_E4M3": (0x7F, 0xFF),
    "F8_E4M3FNUZ": (0x80,),
    "F8_E5M2FNUZ": (0x80,),
    "F8_E8M0": (0xFF,),
}
"""Of types without infinities: the bytes that are NaN."""
_PIECE: Final = 1 << 14
"""Bytes that are looked at as one integer; they stay in a processor's nearest cache."""


def dtype_name(dtype: "torch.dtype | str") -> str:
    """Safetensors' name of a torch dtype: `torch.float32` → "F32"; a raw value's is that name already.

    Raises:
        FormatError: safetensors has none, or it is of less than a byte.
    """
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    name = str(dtype).removeprefix("torch.")
    for known, (torch_name, _) in DTYPES.items():
        if torch_name == name:
            return known
    raise FormatError(f"expected a dtype that safetensors can hold, got {name}")


def torch_dtype(name: str) -> "torch.dtype":
    """The inverse of `dtype_name`: "F32" → `torch.float32`.

    Raises:
        FormatError: no such dtype.
    """
    import torch  # the light room imports this file for names and digests

    if name not in DTYPES:
        raise FormatError(f"expected one of the dtypes {', '.join(DTYPES)}, got {name[:20]!a}")
    dtype = getattr(torch, DTYPES[name][0])
    assert isinstance(dtype, torch.dtype)
    return dtype


def as_tensor(value: Storable) -> "torch.Tensor":
    """The tensor itself, or one that shares a raw value's memory."""
    if not isinstance(value, RawValue):
        return value
    import torch  # the light room imports this file for names and digests

    if not len(value.data):
        return torch.empty(value.shape, dtype=torch_dtype(value.dtype))
    return torch.frombuffer(value.data, dtype=torch_dtype(value.dtype)).reshape(value.shape)


def as_raw_value(value: Storable) -> RawValue:
    """The raw value itself, or a tensor's elements as one, on its memory where they lie row by row on the CPU."""
    if isinstance(value, RawValue):
        return value
    return RawValue(dtype_name(value.dtype), tuple(value.shape), _elements(value).numpy().data)


def count_bytes(value: Storable) -> int:
    """The size of all elements together."""
    return len(value.data) if isinstance(value, RawValue) else value.numel() * value.element_size()


def encode_raw_bytes(tensor: Storable) -> bytes:
    """The elements in row-major order, little-endian, as safetensors stores them; any device, any strides.

    Raises:
        UnsupportedHostError: the tensor has no such bytes (meta, sparse, quantised), or the machine is big-endian.
    """
    return bytes(view_memory(tensor))


def view_memory(tensor: Storable) -> memoryview:
    """`raw_bytes` without a copy, where the tensor lies row by row in the CPU's memory; not to be written to."""
    if isinstance(tensor, RawValue):
        require_little_endian()
        return memoryview(tensor.data).toreadonly()
    return _elements(tensor).numpy().data.toreadonly()


def digest_tensor(tensor: Storable) -> Digest:
    """SHA-256 over `raw_bytes(tensor)` alone; `tensor_set_digest` adds name, dtype and shape.

    Raises:
        UnsupportedHostError: see `raw_bytes`.
    """
    known = tensor.digest if isinstance(tensor, RawValue) else None
    return known or digest_of(view_memory(tensor))


def digest_tensors(tensors: Mapping[K, Storable]) -> dict[K, Digest]:
    """`tensor_digest` of each, several at a time."""
    return dict(zip(tensors, count_at_once(digest_tensor, tensors.values()), strict=True))


def digest_tensor_set(entries: Iterable[tuple[str, str, tuple[int, ...], Digest]]) -> Digest:
    """SHA-256 over the canonical JSON list of `[name, dtype, [shape…], digest]`, sorted by name (code points).

    The same tensors give the same digest whatever the header order, the padding, the metadata and the shards.

    Args:
        entries: name, safetensors dtype name, shape, `tensor_digest`; in any order.

    Raises:
        FormatError: a name twice.
    """
    listed = sorted(entries)
    for (name, *_), (after, *_) in itertools.pairwise(listed):
        if name == after:
            raise FormatError(f"expected each tensor name once, got {name} twice")
    return digest_of(canonical_json.dumps([[n, d, list(s), h] for n, d, s, h in listed]))


def _elements(tensor: "torch.Tensor") -> "torch.Tensor":
    """[bytes] uint8 on the CPU."""
    import torch  # the light room imports this file for names and digests

    require_little_endian()
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise UnsupportedHostError("expected a dense tensor in memory, got a meta, sparse or quantised one")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def is_finite(tensor: Storable) -> bool:
    """Whether no element is NaN or infinite; integers never are."""
    if isinstance(tensor, RawValue):
        return tensor.digest is not None or _is_finite_raw(tensor)
    import torch  # the light room imports this file for names and digests

    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return True
    if tensor.is_complex() or not tensor.numel():
        return bool(torch.isfinite(tensor).all())
    wide = tensor.to(torch.float32) if tensor.element_size() == 1 else tensor  # there are no extremes of float8
    # NaN spreads to the extremes. `isfinite` would make a tensor of truths first, which takes many times as long.
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(wide.detach()))


def _is_finite_raw(value: RawValue) -> bool:
    """The same by the bits alone: many elements are one long integer, so that it needs no library."""
    if value.dtype in _NO_NUMBER:
        return not any(number in value.data for number in _NO_NUMBER[value.dtype])
    if value.dtype not in _EXPONENTS:
        return True
    view = memoryview(value.data)
    exponents, last_places, signs = _list_masks(value.dtype, min(len(view), _PIECE))
    pieces = (int.from_bytes(view[at : at + _PIECE], "little") for at in range(0, len(view), _PIECE))
    # One more in an exponent's last place carries into the sign exactly where all its bits are set.
    return not any(((piece & exponents) + last_places) & signs for piece in pieces)


@lru_cache(maxsize=32)
def _list_masks(dtype: str, length: int) -> tuple[int, int, int]:
    """The exponents, their last places and the signs of as many elements as so many bytes hold."""
    size, exponent = _EXPONENTS[dtype]
    numbers = (exponent, exponent & -exponent, 1 << (8 * size - 1))
    every = (int.from_bytes(number.to_bytes(size, "little") * (length // size), "little") for number in numbers)
    exponents, last_places, signs = every
    return exponents, last_places, signs


def require_little_endian() -> None:
    """Refuses the machines on which memory is not what the file says.

    Raises:
        UnsupportedHostError: this is one.
    """
    if sys.byteorder != "little":
        raise UnsupportedHostError("expected a little-endian machine, got a big-endian one")
