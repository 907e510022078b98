"""Safetensors: every file that upstream reads and we must not, and one spelling for what we write."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rasura.patches._io.files import read_regular
from rasura.patches._io.safetensors_file import (
    CHECKPOINT_LIMITS,
    PATCH_LIMITS,
    Header,
    Limits,
    TensorInfo,
    decode,
    encode,
    encode_raw_bytes,
    read_header,
    torch_dtype,
)
from rasura.patches.errors import FormatError, NotFiniteError

VECTORS = Path(__file__).parents[2] / "vectors"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def build(header: bytes | object, data: bytes = b"") -> bytes:
    """A file of this header, as it stands or as JSON, and these tensor bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(name: str = "a", dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4), **extra: object) -> object:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets, **extra}}


def two(first: tuple[int, int], second: tuple[int, int]) -> object:
    """Two F32 tensors at these ranges."""
    return one("a", shape=[(first[1] - first[0]) // 4], offsets=first) | one(  # type: ignore[operator]
        "b", shape=[(second[1] - second[0]) // 4], offsets=second
    )


def header_of(data: bytes, limits: Limits = PATCH_LIMITS) -> Header:
    return read_header(io.BytesIO(data), len(data), what="the file", limits=limits)


def decoded(data: bytes) -> dict[str, torch.Tensor]:
    return decode(data, what="the file", limits=PATCH_LIMITS, dtypes=FLOATS)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return file.getvalue()


ZERO = b"\0\0\0\0"
INFO = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
INT = '{"dtype":"I32","shape":[1],"data_offsets":[0,4]}'

BAD: dict[str, bytes] = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "length only": b"\x08\0\0\0\0\0\0\0",
    "header of 0 bytes": b"\0" * 8,
    "header of 1 byte": build(b"{"),
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "header of 2^64-1 bytes": b"\xff" * 8 + b"{}",
    "header over the cap": build(b"{" + b" " * (16 * 2**20) + b"}"),
    "header is no UTF-8": build(b'{"\xff":' + INFO.encode() + b"}", ZERO),
    "byte order mark": build(b"\xef\xbb\xbf{}"),
    "leading space": build(b" {}"),
    "trailing nul": build(b"{}\0"),
    "trailing newline": build(b"{}\n"),
    "trailing tab": build(b"{}\t"),
    "trailing garbage": build(b"{}x"),
    "an array": build(b"[]"),
    "a text": build(b'"{}"'),
    "deep nesting": build(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "duplicate name, equal": build(f'{{"a":{INFO},"a":{INFO}}}'.encode(), ZERO),
    "duplicate name, other dtype": build(f'{{"a":{INFO},"a":{INT}}}'.encode(), ZERO),
    "duplicate name, escaped": build(f'{{"a":{INFO},"\\u0061":{INFO}}}'.encode(), ZERO),
    "duplicate field": build(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ZERO),
    "duplicate metadata key": build(f'{{"__metadata__":{{"sign":"-1","sign":"+1"}},"a":{INFO}}}'.encode(), ZERO),
    "duplicate metadata": build(f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{INFO}}}'.encode(), ZERO),
    "metadata null": build({"__metadata__": None} | one(), ZERO),  # type: ignore[operator]
    "metadata list": build({"__metadata__": []} | one(), ZERO),  # type: ignore[operator]
    "metadata number": build({"__metadata__": {"a": 1}} | one(), ZERO),  # type: ignore[operator]
    "metadata is a tensor": build(one("__metadata__"), ZERO),
    "extra field": build(one(extra=1), ZERO),
    "missing dtype": build({"a": {"shape": [1], "data_offsets": [0, 4]}}, ZERO),
    "missing shape": build({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, ZERO),
    "missing offsets": build({"a": {"dtype": "F32", "shape": [1]}}, ZERO),
    "info null": build({"a": None}, ZERO),
    "unknown dtype": build(one(dtype="F128"), ZERO),
    "dtype in lower case": build(one(dtype="f32"), ZERO),
    "dtype of half a byte": build(one(dtype="F4", shape=[8]), ZERO),
    "overlap": build(two((0, 8), (4, 12)), ZERO * 3),
    "alias": build(two((0, 4), (0, 4)), ZERO),
    "hole": build(two((0, 4), (8, 12)), ZERO * 3),
    "hole at the beginning": build(one(offsets=[4, 8]), ZERO * 2),
    "trailing data": build(one(), ZERO + b"x"),
    "truncated data": build(one(), ZERO[:3]),
    "no data": build(one()),
    "data without tensors": build(b"{}", ZERO),
    "range wider than the shape": build(one(offsets=[0, 8]), ZERO * 2),
    "range narrower than the shape": build(one(shape=[2]), ZERO),
    "end before begin": build(one(offsets=[4, 0]), ZERO),
    "negative offset": build(one(offsets=[-4, 0]), ZERO),
    "float offset": build(one(offsets=[0.0, 4.0]), ZERO),
    "one offset": build(one(offsets=[4]), ZERO),
    "three offsets": build(one(offsets=[0, 4, 4]), ZERO),
    "negative extent": build(one(shape=[-1]), ZERO),
    "true as extent": build(one(shape=[True]), ZERO),
    "text as extent": build(one(shape=["1"]), ZERO),
    "shape overflow to zero": build(one(shape=[2**32, 2**32], offsets=[0, 0])),
    "shape overflow to four bytes": build(one(shape=[2**53 - 1, 2**53 - 1, 2**53 - 1]), ZERO),
    "zero hides 2^63": build(one(shape=[0, 2**63], offsets=[0, 0])),
    "zero hides an overflow": build(one(shape=[0, 2**52, 2**52], offsets=[0, 0])),
    "nine dimensions": build(one(shape=[1] * 9), ZERO),
    "overflowing float": build(b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}', ZERO),
    "name is empty": build(one(""), ZERO),
    "name goes upwards": build(one("../../etc/passwd"), ZERO),
    "name goes upwards inside": build(one("a/../b"), ZERO),
    "name is absolute": build(one("/a"), ZERO),
    "name with a nul": build(one("a\0b"), ZERO),
    "name with a newline": build(one("a\n"), ZERO),
    "name with a space": build(one("a b"), ZERO),
    "name in NFC": build(one("\u00e9"), ZERO),
    "name in NFD": build(one("e\u0301"), ZERO),
    "name of 513 characters": build(one("a" * 513), ZERO),
    "names that differ in case": build(one("a.x", shape=[1]) | one("a.X", offsets=[4, 8]), ZERO * 2),  # type: ignore[operator]
    "too many tensors": build({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}),
    "pickle": pickle.dumps({"a": [1.0]}),
    "zip": zipped(),
    "gguf": b"GGUF" + b"\x03\0\0\0" + b"\0" * 64,
}
"""Files whose header alone must be refused."""

BAD_CONTENT: dict[str, bytes] = {
    "NaN": build(one(), b"\0\0\xc0\x7f"),
    "signalling NaN": build(one(), b"\x01\0\x80\x7f"),
    "infinity": build(one(), b"\0\0\x80\x7f"),
    "minus infinity": build(one(), b"\0\0\x80\xff"),
    "half NaN": build(one(dtype="F16", shape=[2]), b"\0\0\x00\x7e"),
    "bfloat16 infinity": build(one(dtype="BF16", shape=[2]), b"\0\0\x80\x7f"),
    "NaN at the end of a scalar": build(one(dtype="F64", shape=[], offsets=[0, 8]), b"\x01\0\0\0\0\0\xf0\x7f"),
    "boolean": build(one(dtype="BOOL", shape=[4]), b"\0\1\2\xff"),
    "integers": build(one(dtype="I64", shape=[1], offsets=[0, 8]), ZERO * 2),
    "complex": build(one(dtype="C64", shape=[1], offsets=[0, 8]), ZERO * 2),
    "float8": build(one(dtype="F8_E4M3", shape=[4]), ZERO),
}
"""Sound files whose tensors no patch may hold."""

UPSTREAM_READS = (
    "leading space", "trailing newline", "duplicate name, equal", "duplicate name, other dtype", "duplicate name, escaped",
    "duplicate metadata key", "metadata null", "extra field", "name is empty", "name goes upwards", "name with a nul",
    "name in NFD", "names that differ in case", "header over the cap",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_headers_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"expected .+, got ") as caught:
        header_of(BAD[name])
    assert len(caught.value.message) < 500
    with pytest.raises(FormatError):
        header_of(BAD[name], CHECKPOINT_LIMITS)
    with pytest.raises(FormatError):
        decoded(BAD[name])


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_tensors_are_refused(name: str) -> None:
    assert header_of(BAD_CONTENT[name]).tensors
    with pytest.raises(FormatError, match=r"^the file: tensor a: expected (finite numbers|dtype BF16 or .+), got "):
        decoded(BAD_CONTENT[name])


@pytest.mark.parametrize("name", UPSTREAM_READS)
def test_our_strictness_is_not_upstreams(name: str) -> None:
    """These cases must stay ours to refuse; were upstream to refuse them, the table above would test nothing new."""
    safetensors.torch.load(BAD[name])


def test_the_largest_header_allowed_and_one_byte_more() -> None:
    limits = Limits(header_bytes=100, tensors=1, file_bytes=112)
    text = json.dumps(one()).encode()
    assert header_of(build(text.ljust(100), ZERO), limits).data_start == 108
    with pytest.raises(FormatError, match="a header of 2 to 100 bytes, got 101"):
        header_of(build(text.ljust(101), ZERO), Limits(header_bytes=100, tensors=1, file_bytes=113))
    with pytest.raises(FormatError, match="at most 112 bytes, got 113"):
        header_of(build(text.ljust(100), ZERO + b"x"), limits)


def test_keys_of_metadata_cannot_write_to_the_terminal() -> None:
    with pytest.raises(FormatError, match="expected a text") as caught:
        header_of(build({"__metadata__": {"\x1b[2J\u202e\n" + "k" * 10_000: 1}}))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250


class Counting(io.BytesIO):
    """A file that knows how much of it was asked for."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.asked += len(data)
        return data


def test_a_header_of_a_million_tensors_is_refused_before_it_is_read() -> None:
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' + b" " * 70_000_000 + b"}"
    file = Counting(build(header))
    with pytest.raises(FormatError, match="a header of 2 to 4194304 bytes"):
        read_header(file, len(header) + 8, what="the file", limits=PATCH_LIMITS)
    assert file.asked == 8
    with pytest.raises(FormatError, match="at most 536870912 bytes"):
        read_header(file, 2**40, what="the file", limits=PATCH_LIMITS)
    assert file.asked == 8


def test_a_file_shorter_than_its_size_is_refused() -> None:
    data = encode({"a": torch.zeros(4)})
    with pytest.raises(FormatError, match="bytes of length and header"):
        read_header(io.BytesIO(data[:30]), len(data), what="the file", limits=PATCH_LIMITS)


def test_headers_of_other_writers_are_read(tmp_path: Path) -> None:
    """What diffusers and safetensors write: format "pt", padding, integers, several dtypes, scalars."""
    tensors = {
        "down_blocks.0.attn2.to_k.weight": torch.randn(4, 3, dtype=torch.float16),
        "text_model.embeddings.position_ids": torch.arange(77).reshape(1, 77),
        "alphas": torch.tensor(0.5, dtype=torch.float64),
        "mask": torch.ones(3, dtype=torch.bool),
        "none": torch.zeros(0, 8, dtype=torch.bfloat16),
        "fp8": torch.zeros(5, dtype=torch.float8_e4m3fn),
    }
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    data = path.read_bytes()
    with path.open("rb") as file:
        header = read_header(file, len(data), what=str(path), limits=CHECKPOINT_LIMITS)
    assert header.metadata == {"format": "pt"}
    assert {info.name for info in header.tensors} == set(tensors)
    for info in header.tensors:
        tensor = tensors[info.name]
        assert (torch_dtype(info.dtype), info.shape) == (tensor.dtype, tuple(tensor.shape))
        assert data[header.data_start + info.start : header.data_start + info.stop] == encode_raw_bytes(tensor)


def test_an_unpadded_header_and_tensors_out_of_name_order() -> None:
    data = build(one("b", offsets=[0, 4]) | one("a", offsets=[4, 8]), b"\0\0\x80\x3f" + ZERO)  # type: ignore[operator]
    assert [info.name for info in header_of(data).tensors] == ["b", "a"]
    assert {name: tensor.tolist() for name, tensor in decoded(data).items()} == {"b": [1.0], "a": [0.0]}


GOLDEN = {
    "b.lora_A.weight": torch.tensor([[1.0, -0.0, 0.5]]),
    "a.lora_B.weight": torch.tensor([[2.0], [-1.5]]),
    "half": torch.tensor([1.0, 2.0**-24, -0.0], dtype=torch.float16),
    "brain": torch.tensor(3.0, dtype=torch.bfloat16),
    "basis": torch.tensor([5e-324, -1.0], dtype=torch.float64),
    "none": torch.zeros(0, 2),
}


def test_the_golden_file_is_written_and_read_byte_for_byte() -> None:
    golden = (VECTORS / "tensors.safetensors").read_bytes()
    assert encode(GOLDEN, {"format": "pt", "a": "é"}) == golden
    assert encode(dict(reversed(GOLDEN.items())), {"a": "é", "format": "pt"}) == golden
    found = decoded(golden)
    assert list(found) == ["basis", "a.lora_B.weight", "b.lora_A.weight", "none", "brain", "half"]
    for name, tensor in GOLDEN.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert encode_raw_bytes(found[name]) == encode_raw_bytes(tensor)


def test_the_smallest_file_as_a_literal() -> None:
    data = b'\x40\0\0\0\0\0\0\0{"xy":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}       \0\0\x80\x3f\0\0\0\x80'
    assert encode({"xy": torch.tensor([[1.0, -0.0]])}) == data
    assert header_of(data) == Header(72, (TensorInfo("xy", "F32", (1, 2), 0, 8),), {})


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"note": 'quote " backslash \\ tab \t é 😀'}])
def test_the_bytes_are_those_of_upstream(metadata: dict[str, str] | None) -> None:
    tensors = {name: GOLDEN[name] for name in ("a.lora_B.weight", "b.lora_A.weight", "half", "basis", "none")}
    assert encode(tensors, metadata) == safetensors.torch.save(tensors, metadata)


def test_metadata_have_one_order() -> None:
    metadata = {f"key{i}": str(i) for i in range(50)}
    first = encode({"x": torch.zeros(1)}, metadata)
    assert first == encode({"x": torch.zeros(1)}, dict(reversed(metadata.items())))
    assert dict(header_of(first).metadata) == metadata


def test_every_tensor_begins_at_a_multiple_of_its_width() -> None:
    header = header_of(encode({"a": torch.zeros(3, dtype=torch.float16), "b": torch.zeros(3, dtype=torch.float64)}))
    assert [(header.data_start + info.start) % 8 for info in header.tensors] == [0, 0]


def test_strides_and_views_do_not_show() -> None:
    square = torch.arange(12.0).reshape(3, 4)
    assert encode({"x": square.T}) == encode({"x": square.T.contiguous()})
    assert encode({"x": square[1:, ::2]}) == encode({"x": square[1:, ::2].clone()})
    assert encode({"x": square.clone().requires_grad_()}) == encode({"x": square})
    assert encode({"x": torch.zeros(1).expand(4)}) == encode({"x": torch.zeros(4)})


def test_decoded_tensors_are_writable_and_own_their_memory() -> None:
    data = encode({"a": torch.zeros(4), "b": torch.zeros(4)})
    found = decoded(data)
    found["a"].fill_(1)
    assert found["b"].tolist() == [0] * 4
    assert decoded(data)["a"].tolist() == [0] * 4


def test_what_is_loaded_are_the_bytes_that_were_read(tmp_path: Path) -> None:
    """A file rewritten in place, or swapped, after the reading changes nothing."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode({"a": torch.zeros(4)}))
    data = read_regular(path, 1000)
    with path.open("r+b") as file:
        file.seek(-16, os.SEEK_END)
        file.write(b"\xff" * 16)
    assert decoded(data)["a"].tolist() == [0] * 4


@pytest.mark.parametrize("name", ["", "..", "a//b", "a b", "é", "__metadata__", "a" * 513, "a\0"])
def test_names_that_could_not_be_read_are_not_written(name: str) -> None:
    with pytest.raises(FormatError, match="tensor names"):
        encode({name: torch.zeros(1)})


def test_twins_are_not_written() -> None:
    with pytest.raises(FormatError, match=r"a\.B and a\.b"):
        encode({"a.B": torch.zeros(1), "a.b": torch.zeros(1)})


def test_numbers_that_could_not_be_read_are_not_written() -> None:
    for value in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(NotFiniteError, match="tensor x"):
            encode({"x": torch.tensor([0.0, value])})


@pytest.mark.parametrize("metadata", [{"a": 1}, {"a": "\ud800"}, {"\ud800": "a"}, {"a": None}])
def test_metadata_that_are_no_texts_are_not_written(metadata: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        encode({"x": torch.zeros(1)}, metadata)


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[a-z0-9_.-]{1,12}(/[a-z0-9_-]{1,5})?", fullmatch=True).filter(
    lambda name: name != "__metadata__" and not {".", ".."} & set(name.split("/"))
)


@st.composite
def tensors_of(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    count = int(torch.tensor(shape, dtype=torch.int64).prod())
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    return torch.tensor(draw(st.lists(floats, min_size=count, max_size=count)), dtype=dtype).reshape(shape)


@given(
    st.dictionaries(names, tensors_of(), max_size=4),
    st.dictionaries(st.text('ab"\\é\n', max_size=3), st.text(max_size=5).filter(str.isprintable)),
)
@settings(deadline=None)
def test_decoding_inverts_encoding_and_upstream_agrees(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    data = encode(tensors, metadata)
    found = decoded(data)
    upstream = safetensors.torch.load(data)
    assert set(found) == set(upstream) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].shape == upstream[name].shape == tensor.shape
        assert encode_raw_bytes(found[name]) == encode_raw_bytes(upstream[name]) == encode_raw_bytes(tensor)
    assert dict(header_of(data).metadata) == metadata
    assert encode(found, metadata) == data


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_flipped_bits_are_refused_or_mean_the_same_to_upstream(data: st.DataObject) -> None:
    """Where we accept, upstream must accept and see the very same tensors: no two readings of one file."""
    golden = bytearray(encode(GOLDEN, {"format": "pt"}))
    golden[data.draw(st.integers(0, len(golden) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decoded(bytes(golden))
    except FormatError:
        return
    upstream = safetensors.torch.load(bytes(golden))
    assert {n: (t.dtype, t.shape, encode_raw_bytes(t)) for n, t in found.items()} == {
        n: (t.dtype, t.shape, encode_raw_bytes(t)) for n, t in upstream.items()
    }


def test_headers_are_read_without_torch() -> None:
    program = """
import io, sys
from rasura.patches._io.safetensors_file import CHECKPOINT_LIMITS, read_header
data = sys.stdin.buffer.read()
read_header(io.BytesIO(data), len(data), what="it", limits=CHECKPOINT_LIMITS)
sys.exit("torch" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    data = (VECTORS / "tensors.safetensors").read_bytes()
    subprocess.run([sys.executable, "-c", program], input=data, check=True, env=environment)
