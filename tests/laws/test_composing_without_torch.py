"""Bytes composed with numpy are, bit for bit, what torch composes: whatever the weights, the set and the strengths."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.values import factories

from rasura.patches._io.arrays import Array, round_to_bfloat16, round_to_float16, widen
from rasura.patches._io.tensor_bytes import RawValue, as_raw_value, as_tensor
from rasura.patches.algebra.compose import compose_all
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.light.compose_raw import compose_raw
from rasura.patches.algebra.light.layers import Layer, Term, bound_sum
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import AlgebraError, RasuraError
from rasura.patches.types import ParamName

D_OUT, D_IN = 133, 6  # more rows than are composed at a time, in neither's blocks a whole number of them
STACK = tuple(factories.increment(seed, D_OUT, D_IN, rank=1 + seed % 3) for seed in range(6))
STEP = Increment(torch.full((1, D_IN), 2.0**-22), torch.full((D_OUT, 1), 2.0**-18))
LARGE = Increment(torch.full((1, D_IN), 0.25), torch.full((D_OUT, 1), 63.0))
NAME = ParamName("unet.x.attn2.to_k.weight")
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}

stacks = st.lists(st.builds(Term, st.sampled_from((*STACK, STEP, LARGE)), factories.strengths), min_size=1, max_size=6)
stored = st.sampled_from(tuple(BITS))


@st.composite
def bases(draw: st.DrawFn) -> torch.Tensor:
    """Weights of any bits: zeros of both signs, subnormals, numbers next to the largest, infinities and NaN, too."""
    dtype = draw(stored)
    usual = factories.weights(draw(st.integers(0, 9)), D_OUT, D_IN, torch.float32).to(dtype)
    odd = draw(st.lists(st.tuples(st.integers(0, D_OUT * D_IN - 1), st.sampled_from(_odd(dtype))), max_size=6))
    for place, value in odd:
        usual.view(-1)[place] = value
    if draw(st.booleans()):
        integers = torch.iinfo(BITS[dtype])
        place = draw(st.integers(0, D_OUT * D_IN - 1))
        usual.view(-1).view(BITS[dtype])[place] = draw(st.integers(integers.min, integers.max))
    return usual


def _odd(dtype: torch.dtype) -> list[float]:
    sizes = torch.finfo(dtype)
    numbers = [0.0, sizes.smallest_normal, sizes.smallest_normal / 2, sizes.smallest_normal * sizes.eps, sizes.max]
    return [*numbers, *(-number for number in numbers), 1.0 + sizes.eps, float("inf")]


def attempt(compose: object, base: object, terms: list[Term]) -> torch.Tensor | tuple[type, str]:
    assert callable(compose)
    try:
        return as_tensor(compose({NAME: base}, [Layer(NAME, tuple(terms))])[NAME])
    except RasuraError as error:
        return type(error), error.message


@given(bases(), stacks)
def test_the_same_bits_or_the_same_refusal(base: torch.Tensor, terms: list[Term]) -> None:
    before = base.clone()
    ours, theirs = attempt(compose_raw, as_raw_value(base), terms), attempt(compose_all, base, terms)
    if isinstance(theirs, tuple):
        assert ours == theirs
    else:
        assert isinstance(ours, torch.Tensor)
        assert factories.same_bits(ours, theirs)
    assert torch.equal(base.view(BITS[base.dtype]), before.view(BITS[base.dtype]))


@given(stacks)
def test_the_same_bound(terms: list[Term]) -> None:
    B = torch.cat([term.increment.B.double() * term.strength.value for term in terms], dim=1)
    assert bound_sum(terms) == float(B.abs().sum(dim=1).max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_signs_of_zero_stay_where_nothing_is_added(dtype: torch.dtype) -> None:
    base = torch.full((3, 4), -0.0, dtype=dtype)
    nothing = Term(Increment(torch.zeros(2, 4), torch.full((3, 2), -1.0)), Strength())
    (found,) = compose_raw({NAME: as_raw_value(base)}, [Layer(NAME, (nothing,))]).values()
    assert factories.same_bits(as_tensor(found), base)


def test_float64_weights_are_refused_by_both() -> None:
    base, said = torch.zeros(D_OUT, D_IN, dtype=torch.float64), "weights are torch.float64: expected float16, bfloat16"
    for compose, value in ((compose_raw, as_raw_value(base)), (compose_all, base)):
        refused = attempt(compose, value, [Term(STEP)])
        assert isinstance(refused, tuple)
        assert refused[0] is AlgebraError
        assert refused[1].startswith(said)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_numbers_are_rounded_as_torch_rounds_them(numbers: list[float]) -> None:
    singles = torch.tensor(numbers, dtype=torch.float32)
    for way, dtype in ((round_to_bfloat16, torch.bfloat16), (round_to_float16, torch.float16)):
        found = torch.from_numpy(way(singles.numpy()).view(np.int16)).view(dtype)
        assert factories.same_bits(found, singles.to(dtype))


@pytest.mark.parametrize(("way", "dtype"), [(round_to_bfloat16, torch.bfloat16), (round_to_float16, torch.float16)])
def test_around_every_number_of_two_bytes(way: Callable[[Array], Array], dtype: torch.dtype) -> None:
    """Each one, the halves to its neighbours, and the nearest float32 on both sides of those."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).to(torch.float32)
    every = every[every.isfinite()]
    after = torch.cat([every[1:], every[-1:]])
    halves = (every.double() + after.double()) / 2
    for singles in (every, halves.float()):
        for bits in (-1, 0, 1):
            near = (singles.view(torch.int32) + bits).view(torch.float32)
            near = near[near.isfinite()]
            found = torch.from_numpy(way(near.numpy()).view(np.int16)).view(dtype)
            assert factories.same_bits(found, near.to(dtype))


def test_every_number_of_two_bytes_widens_to_itself() -> None:
    for dtype, name in ((torch.float16, "F16"), (torch.bfloat16, "BF16")):
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        wide = torch.from_numpy(widen(RawValue(name, (2**16,), every.view(torch.uint8).numpy().data)))
        known = every.isfinite()
        assert factories.same_bits(wide[known], every.to(torch.float32)[known])
        assert bool((wide[~known].abs() >= 2**16).logical_or(wide[~known].isnan()).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_all_halves_between_two_neighbours_round_to_the_even_one(dtype: torch.dtype) -> None:
    """Bases at every bit pattern, moved by grid points that fall between, on and beside halves."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    base = every[every.isfinite() & (every.abs() < torch.finfo(dtype).max / 2)]
    base = base[: len(base) // 8 * 8].reshape(-1, 8).contiguous()
    for sixteenths in (1, 8, 16, -16, 64):
        A = torch.tensor([[2.0**-k for k in range(1, 17, 2)]])
        term = Term(Increment(A, torch.full((len(base), 1), 2.0**-10)), Strength(sixteenths))
        layers = [Layer(NAME, (term,))]
        (ours,) = compose_raw({NAME: as_raw_value(base)}, layers).values()
        assert factories.same_bits(as_tensor(ours), compose_all({NAME: base}, layers)[NAME])
