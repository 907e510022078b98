"""Tensors as bytes and digests."""

import hashlib
import math
import struct
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches._io.safetensors_file import (
    digest_tensor,
    digest_tensor_set,
    dtype_name,
    encode_raw_bytes,
    torch_dtype,
)
from rasura.patches._io.tensor_bytes import DTYPES, RawValue, as_tensor, count_bytes, is_finite
from rasura.patches.errors import FormatError, UnsupportedHostError
from rasura.patches.types import Digest


def test_a_tensors_digest_covers_its_little_endian_bytes() -> None:
    tensor = torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)
    assert encode_raw_bytes(tensor) == b"\x80\x3f\x00\xc0"
    assert digest_tensor(tensor) == hashlib.sha256(b"\x80\x3f\x00\xc0").hexdigest()
    assert digest_tensor(torch.zeros(2)) != digest_tensor(-torch.zeros(2))
    assert digest_tensor(torch.zeros(0)) == hashlib.sha256(b"").hexdigest()


def test_the_order_in_memory_leaves_no_trace() -> None:
    square = torch.arange(12.0).reshape(3, 4)
    for view in (square.T, square[1:, ::2], square[:, 1], square.reshape(-1)[::3], torch.zeros(1).expand(5)):
        assert encode_raw_bytes(view) == encode_raw_bytes(view.clone(memory_format=torch.contiguous_format))
        assert digest_tensor(view) == hashlib.sha256(encode_raw_bytes(view)).hexdigest()


def test_a_sets_digest_covers_name_dtype_shape_and_bytes() -> None:
    one_digest, other = Digest("11" * 32), Digest("22" * 32)
    entries = [("b", "F16", (2, 3), one_digest), ("a", "F32", (), other)]
    expected = b'[["a","F32",[],"%s"],["b","F16",[2,3],"%s"]]' % (b"22" * 32, b"11" * 32)
    assert digest_tensor_set(entries) == hashlib.sha256(expected).hexdigest()
    assert digest_tensor_set(reversed(entries)) == digest_tensor_set(iter(entries))
    for changed in (
        ("b", "BF16", (2, 3), one_digest),
        ("b", "F16", (3, 2), one_digest),
        ("c", "F16", (2, 3), one_digest),
        ("b", "F16", (2, 3), other),
    ):
        assert digest_tensor_set([changed, entries[1]]) != digest_tensor_set(entries)
    with pytest.raises(FormatError, match="b twice"):
        digest_tensor_set([entries[0], ("b", "F32", (1,), other)])


EMPTY: dict[str, Callable[[], torch.Tensor]] = {
    "meta": lambda: torch.zeros(2, device="meta"),
    "sparse": lambda: torch.zeros(2).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecates its quantised tensors
def test_tensors_without_bytes_of_their_own_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedHostError, match="dense tensor"):
        digest_tensor(EMPTY[name]())


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.bool,
        torch.float8_e5m2,
        torch.complex64,
    ],
)
def test_dtype_names_go_both_ways(dtype: torch.dtype) -> None:
    assert torch_dtype(dtype_name(dtype)) is dtype


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(FormatError, match="complex128"):
        dtype_name(torch.complex128)
    for name in ("float32", "F4", ""):
        with pytest.raises(FormatError, match="expected one of the dtypes"):
            torch_dtype(name)


@pytest.mark.parametrize("name", [name for name, (_, size) in DTYPES.items() if size <= 2])
def test_a_raw_value_is_finite_where_the_tensor_is_for_every_element_there_is(name: str) -> None:
    size = DTYPES[name][1]
    if name == "BOOL":
        assert is_finite(RawValue(name, (2,), bytearray(b"\x00\x01")))
        return
    every = [number.to_bytes(size, "little") for number in range(256**size)]
    tensor = as_tensor(RawValue(name, (len(every),), bytearray(b"".join(every))))
    for number, data in enumerate(every):
        value = RawValue(name, (1,), bytearray(data))
        assert is_finite(value) == is_finite(tensor[number : number + 1]), f"{number:#x}"


@pytest.mark.parametrize("name", ["F64", "F32", "C64"])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1.0, 0.0])
def test_a_raw_value_of_wide_elements_too(name: str, odd: float) -> None:
    tensor = torch.tensor([2.0, odd], dtype=torch_dtype(name))
    value = RawValue(name, (2,), bytearray(encode_raw_bytes(tensor)))
    assert is_finite(value) == math.isfinite(odd)
    assert digest_tensor(value) == digest_tensor(tensor)
    assert digest_tensor(as_tensor(value)) == digest_tensor(tensor)
    assert (dtype_name(value.dtype), count_bytes(value)) == (name, count_bytes(tensor))


@given(
    st.sampled_from([("F64", "d"), ("F32", "f"), ("F16", "e")]),
    st.integers(1, 20_000),
    st.sampled_from([None, math.nan, math.inf, -math.inf, 60_000.0, 5e-8, -0.0]),
    st.data(),
)
def test_one_odd_element_is_found_wherever_it_is(
    kind: tuple[str, str], count: int, odd: float | None, data: st.DataObject
) -> None:
    """Elements are looked at thousands at a time: at the ends of such a piece, too."""
    name, code = kind
    numbers = [1.5, -0.0, 60_000.0, -3e-5] * (count // 4) + [2.0] * (count % 4)
    if odd is not None:
        numbers[data.draw(st.integers(0, count - 1))] = odd
    value = RawValue(name, (count,), bytearray(struct.pack(f"<{count}{code}", *numbers)))
    assert is_finite(value) == (odd is None or math.isfinite(odd))
