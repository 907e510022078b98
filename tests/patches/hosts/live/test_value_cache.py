"""What a live host remembers: nothing is believed for it, and the digests are those of hashing everything."""

import hashlib
import threading
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rasura.patches._io import settings as handed_in
from rasura.patches._io.parallel import count_at_once, count_workers
from rasura.patches._io.settings import Settings
from rasura.patches._io.tensor_bytes import digest_tensor, encode_raw_bytes
from rasura.patches.algebra.compose import Layer, Term, compose
from rasura.patches.algebra.increment import Increment
from rasura.patches.errors import InputError
from rasura.patches.hosts.interface import Value
from rasura.patches.hosts.live.bit_compare import compute_checksum, same_bits
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.live.value_cache import Remembered, compose_values
from rasura.patches.types import ParamName

NAME = ParamName("unet.attn2.to_k.weight")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn2 = nn.Module()
        self.attn2.to_k = nn.Linear(24, 16, bias=False).to(torch.float16)


@pytest.fixture
def unet() -> Any:
    return _Attention()


def increment(seed: int) -> Increment:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(2, 24, generator=generator)
    return Increment.quantised(A / A.norm(dim=1, keepdim=True), torch.randn(16, 2, generator=generator))


def move(host: TorchHost, seeds: frozenset[int]) -> None:
    """What a motion of a registry does with tensors."""
    with host.alone():
        originals, digests = host.lent([NAME]), host.original_digests([NAME])
        if not seeds:
            return host.write(originals, forget=[NAME])
        layer = Layer(NAME, tuple(Term(increment(seed)) for seed in sorted(seeds)))
        found = compose_values({NAME: layer}, originals, {NAME: (digests[NAME], seeds)}, host.memory)
        assert found[NAME].digest == digest_tensor(compose(originals[NAME], layer.terms))
        host.write({NAME: found[NAME].tensor})
    return None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.frozensets(st.integers(0, 3), max_size=3), max_size=12), st.integers(0, 3))
def test_any_walk_gives_the_digests_of_hashing_everything(walk: list[frozenset[int]], count: int) -> None:
    unet: Any = _Attention()
    before = encode_raw_bytes(unet.attn2.to_k.weight)
    host = TorchHost({"unet": unet}, "live", remember=count)
    for seeds in [*walk, frozenset[int]()]:
        move(host, seeds)
        assert host.digests([NAME]) == {NAME: hashlib.sha256(encode_raw_bytes(unet.attn2.to_k.weight)).hexdigest()}
        assert host.original_digests([NAME]) == {NAME: hashlib.sha256(before).hexdigest()}
        assert len(list(host.memory)) <= count
    assert encode_raw_bytes(unet.attn2.to_k.weight) == before


def test_what_comes_back_is_not_composed_again_and_takes_no_other_memory(unet: Any) -> None:
    host = TorchHost({"unet": unet}, "live")
    move(host, frozenset({1}))
    first = host.memory.made(NAME, (host.original_digests([NAME])[NAME], frozenset({1})))
    move(host, frozenset())
    move(host, frozenset({1}))
    again = host.memory.made(NAME, (host.original_digests([NAME])[NAME], frozenset({1})))
    assert first is not None
    assert again is first
    # The original that is kept and the one that is remembered are one.
    assert host.lent([NAME])[NAME].data_ptr() in {tensor.data_ptr() for tensor in host.memory}


@pytest.mark.parametrize("seeds", [frozenset(), frozenset({1})])
def test_a_change_behind_torchs_back_is_seen(unet: Any, seeds: frozenset[int]) -> None:
    host = TorchHost({"unet": unet}, "live")
    for each in (frozenset({1}), frozenset[int](), seeds):
        move(host, each)
    known, version = host.digests([NAME]), unet.attn2.to_k.weight._version
    unet.attn2.to_k.weight.data.view(torch.int16)[3, 5] ^= 1
    assert unet.attn2.to_k.weight._version == version  # so a counter of versions would not have told
    assert host.digests([NAME]) == {NAME: digest_tensor(unet.attn2.to_k.weight)} != known
    unet.attn2.to_k.weight.data.view(torch.int16)[3, 5] ^= 1
    move(host, frozenset())


def test_a_remembered_value_that_was_damaged_is_not_used(unet: Any) -> None:
    host = TorchHost({"unet": unet}, "live")
    move(host, frozenset({1}))
    made_of = (host.original_digests([NAME])[NAME], frozenset({1}))
    value = host.memory.made(NAME, made_of)
    assert value is not None
    value.tensor.view(torch.int16)[0, 0] += 1
    assert host.memory.made(NAME, made_of) is None
    move(host, frozenset())
    move(host, frozenset({1}))  # composed anew, and compared with it inside
    move(host, frozenset())


def test_a_damaged_original_is_hashed_as_it_is(unet: Any) -> None:
    host = TorchHost({"unet": unet}, "live")
    move(host, frozenset({1}))
    original = host.original_digests([NAME])[NAME]
    kept = unet.__dict__["_rasura_originals"][NAME]
    kept.view(torch.int16)[0, 0] += 1
    assert host.original_digests([NAME])[NAME] == digest_tensor(kept) != original


def test_nothing_is_remembered_where_nothing_shall_be(unet: Any) -> None:
    host = TorchHost({"unet": unet}, "live", remember=0)
    move(host, frozenset({1}))
    move(host, frozenset())
    assert list(host.memory) == []
    with pytest.raises(InputError, match="remember=-1: expected"):
        TorchHost({"unet": unet}, "live", remember=-1)
    memory = Remembered(0)
    memory.put(NAME, Value(torch.zeros(2), digest_tensor(torch.zeros(2))))
    assert memory.equal(NAME, torch.zeros(2)) is None


@given(st.sampled_from(DTYPES), st.integers(1, 9), st.integers(1, 70), st.integers(0, 2**31), st.data())
def test_bits_are_compared_as_bytes_would_be(dtype: torch.dtype, rows: int, width: int, seed: int, data: Any) -> None:
    left = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)
    right = left.clone()
    assert same_bits(left, right)
    assert compute_checksum(left) == compute_checksum(right)
    integers = right.view(torch.uint8)
    at = data.draw(st.tuples(st.integers(0, rows - 1), st.integers(0, integers.shape[1] - 1)))
    integers[at] ^= 1 << data.draw(st.integers(0, 7))
    assert not same_bits(left, right)
    assert compute_checksum(left) != compute_checksum(right)


def test_zeros_of_either_sign_differ_and_nans_are_the_same() -> None:
    assert not same_bits(torch.tensor([[0.0]]), torch.tensor([[-0.0]]))
    assert same_bits(torch.tensor([[float("nan")]]), torch.tensor([[float("nan")]]))
    strided = torch.arange(12.0).reshape(3, 4).t()
    assert same_bits(strided, strided.contiguous())
    assert not same_bits(torch.zeros(2, 3), torch.zeros(3, 2))
    assert same_bits(torch.zeros(0), torch.zeros(0))


def test_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_in, "_CHOSEN", [Settings(threads="1")])
    assert count_workers() == 1
    assert count_at_once(lambda _: threading.get_ident(), range(4)) == [threading.get_ident()] * 4
    monkeypatch.setattr(handed_in, "_CHOSEN", [Settings(threads="3")])
    assert count_workers() == 3
    both = threading.Barrier(3, timeout=30)
    assert count_at_once(lambda each: (both.wait(), each)[1], range(3)) == [
        0,
        1,
        2,
    ]  # three of them, or this would not end
    monkeypatch.setattr(handed_in, "_CHOSEN", [Settings(threads="many")])
    assert count_workers() >= 1
    monkeypatch.setattr(handed_in, "_CHOSEN", [Settings(threads="64")])
    assert count_workers() == 8


def test_what_was_begun_has_ended_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_in, "_CHOSEN", [Settings(threads="2")])
    ended: list[int] = []

    both = threading.Barrier(2, timeout=30)

    def work(each: int) -> None:
        both.wait()
        if each == 0:
            raise ValueError("the first")
        time.sleep(0.05)
        ended.append(each)

    with pytest.raises(ValueError, match="the first"):
        count_at_once(work, [0, 1])
    assert ended == [1]
