"""W(S) is a function of the base and the set S, to the bit: of no order, history, grouping or device."""

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.values import factories

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.compose import Layer, Term, bound_sum, compose, compose_all, layers_of, sum_increments
from rasura.patches.algebra.increment import SUM_LIMIT, Increment
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import BoundExceededError
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import ParamName

D_OUT, D_IN = 24, 20
STACK = tuple(factories.increment(seed, D_OUT, D_IN, rank=1 + seed % 3) for seed in range(8))
dtypes = st.sampled_from(factories.DTYPES)
stacks = st.lists(st.builds(Term, st.sampled_from(STACK), factories.strengths), max_size=8)


def base(dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return factories.weights(seed, D_OUT, D_IN, dtype)


@given(dtypes, stacks, st.randoms(use_true_random=False))
def test_order_is_nothing(dtype: torch.dtype, terms: list[Term], order: random.Random) -> None:
    W = base(dtype)
    shuffled = order.sample(terms, len(terms))
    assert factories.same_bits(compose(W, terms), compose(W, shuffled))


@given(dtypes, stacks)
def test_the_base_is_never_changed_nor_shared(dtype: torch.dtype, terms: list[Term]) -> None:
    W = base(dtype)
    result = compose(W, terms)
    assert factories.same_bits(W, base(dtype))
    assert result.untyped_storage().data_ptr() != W.untyped_storage().data_ptr()


@given(dtypes, stacks)
def test_strength_zero_is_absence_to_the_bit(dtype: torch.dtype, terms: list[Term]) -> None:
    W = base(dtype)
    silent = [Term(increment, Strength(0)) for increment in STACK]
    assert factories.same_bits(compose(W, [*silent, *terms]), compose(W, terms))
    assert factories.same_bits(compose(W, silent), W)


@given(dtypes, stacks, factories.strengths)
def test_opposite_strengths_cancel(dtype: torch.dtype, terms: list[Term], strength: Strength) -> None:
    W = base(dtype)
    pair = [Term(STACK[0], strength), Term(STACK[0], Strength(-strength.sixteenths))]
    assert factories.same_bits(compose(W, [*pair, *terms]), compose(W, terms))


@given(dtypes, stacks, st.randoms(use_true_random=False))
def test_one_gemm_or_any_number_of_them(dtype: torch.dtype, terms: list[Term], cut: random.Random) -> None:
    """Split the stacked rank anywhere, multiply the pieces with any routine, add them in any order."""
    if not terms:
        return
    A = torch.cat([term.increment.A.double() for term in terms])
    B = torch.cat([term.increment.B.double() * term.strength.value for term in terms], dim=1)
    columns = cut.sample(range(A.shape[0]), A.shape[0])
    borders = sorted(cut.sample(range(len(columns) + 1), min(3, len(columns))))
    chunks = [c for a, b in itertools.pairwise([0, *borders, len(columns)]) if (c := columns[a:b])]
    total = torch.zeros(D_OUT, D_IN, dtype=torch.float64)
    for chunk in chunks:
        total += cut.choice(GEMMS)(B[:, chunk], A[chunk])
    assert torch.equal(total, sum_increments(terms))
    expected = (base(dtype).double() + total).float().to(dtype)
    assert torch.equal(expected, compose(base(dtype), terms))


def _numpy(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(B.numpy() @ A.numpy())


def _einsum(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return torch.einsum("or,ri->oi", B, A)


def _outer(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return sum((torch.outer(B[:, k], A[k]) for k in range(A.shape[0])), torch.zeros(D_OUT, D_IN, dtype=torch.float64))


def _transposed(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return (A.T.contiguous() @ B.T.contiguous()).T


def _summed(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.sum(B.numpy()[:, :, None] * A.numpy()[None], axis=1))


GEMMS = (torch.matmul, _numpy, _einsum, _outer, _transposed, _summed)


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_zeros_keep_their_signs(dtype: torch.dtype, rank: int) -> None:
    """A GEMM gives a sum of zero products either sign, by its rank and its library; -0.0 plus that must not tell."""
    W = torch.full((3, 4), -0.0, dtype=dtype)
    negative = Increment(torch.zeros(rank, 4), torch.full((3, rank), -1.0))
    assert factories.same_bits(compose(W, [Term(negative)]), W)
    assert factories.same_bits(compose(-W, [Term(negative)]), -W)


# Python's integers as the oracle: A in steps of 2⁻²², B of 2⁻¹⁸, strengths of 2⁻⁴, sums of 2⁻⁴⁴.
near_the_edge = st.integers(-(2**24 - 1), 2**24 - 1) | st.sampled_from([2**24 - 1, 1 - 2**24, 2**23, 1, -1, 0])
detectors = st.integers(-(2**22), 2**22) | st.sampled_from([2**22, -(2**22), 2**22 - 1, 1])


@given(st.lists(st.tuples(detectors, near_the_edge, st.integers(-64, 64)), min_size=1, max_size=7), st.randoms())
@settings(max_examples=300)
def test_sums_are_exact_below_the_bound_and_refused_from_it_on(
    parts: list[tuple[int, int, int]], order: random.Random
) -> None:
    terms = [Term(factories.exact_increment([[a]], [[b]]), Strength(s)) for a, b, s in parts]
    bound = Fraction(sum(abs(b * s) for _, b, s in parts), 2**22)
    assert Fraction(bound_sum(terms)) == bound
    order.shuffle(terms)
    if bound >= 2**8:
        with pytest.raises(BoundExceededError, match="expected less than 256"):
            sum_increments(terms)
        return
    exact = Fraction(sum(a * b * s for a, b, s in parts), 2**44)
    assert Fraction(float(sum_increments(terms))) == exact


def test_the_last_sum_below_the_bound_and_the_first_that_reaches_it() -> None:
    full, most = 2**22, 2**24 - 1  # |a| = 1, |b| = 64 - 2⁻¹⁸
    below = [Term(factories.exact_increment([[full]], [[most]])) for _ in range(4)]
    assert bound_sum(below) == SUM_LIMIT - 2.0**-16
    assert float(sum_increments(below)) == SUM_LIMIT - 2.0**-16
    rest = Term(factories.exact_increment([[full]], [[4 - 1]]))  # 2⁻¹⁸ short of the bound
    assert float(sum_increments([*below, rest])) == SUM_LIMIT - 2.0**-18
    with pytest.raises(BoundExceededError):
        sum_increments([*below, rest, Term(factories.exact_increment([[full]], [[1]]))])


@given(dtypes, st.integers(-(2**24), 2**24), st.integers(-(2**22), 2**22), st.integers(-(2**24 - 1), 2**24 - 1))
@settings(max_examples=300)
def test_roundings_are_those_of_ieee_754(dtype: torch.dtype, w: int, a: int, b: int) -> None:
    """One float64 addition, one rounding to float32, one to the dtype; each to nearest, ties to even."""
    W = (torch.tensor([[w]], dtype=torch.float64) * 2.0**-23).to(dtype)
    exact = Fraction(float(W)) + Fraction(a * b, 2**40)
    float64 = exact.numerator / exact.denominator  # Python's true division of integers rounds correctly
    expected = torch.tensor(_narrowed(float(np.float32(float64)), dtype), dtype=dtype)
    assert torch.equal(compose(W, [Term(factories.exact_increment([[a]], [[b]]))])[0, 0], expected)


def _narrowed(value: float, dtype: torch.dtype) -> float:
    if dtype == torch.float16:
        return float(np.float16(np.float32(value)))
    if dtype == torch.bfloat16:
        bits = int(np.float32(value).view(np.uint32))
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
        return float(np.uint32(rounded).view(np.float32))
    return value


class Walk(RuleBasedStateMachine):
    """Random applies, reverts, switches and changes of strength on live modules of three dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.modules = torch.nn.ModuleDict({str(i): torch.nn.Linear(D_IN, D_OUT, bias=False) for i in range(3)})
        for module, dtype in zip(self.modules.values(), factories.DTYPES, strict=True):
            module.weight = torch.nn.Parameter(base(dtype))
        self.names = [ParamName(f"unet.{i}.weight") for i in range(3)]
        self.host = TorchHost({"unet": self.modules}, "walk")
        self.pristine = self.host.read(self.names)
        self.applied: dict[int, Strength] = {}

    @rule(patch=st.integers(0, len(STACK) - 1), strength=factories.strengths)
    def apply(self, patch: int, strength: Strength) -> None:
        self.move({**self.applied, patch: strength})

    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.applied))) if self.applied else None
        self.move({patch: s for patch, s in self.applied.items() if patch != gone})

    @rule(patches=st.dictionaries(st.integers(0, len(STACK) - 1), factories.strengths))
    def switch(self, patches: dict[int, Strength]) -> None:
        self.move(patches)

    def move(self, desired: dict[int, Strength]) -> None:
        layers = {layer.name: layer.terms for layer in self.layers(desired)}
        originals = self.host.originals(self.names)
        self.host.write(
            {name: compose(originals[name], layers.get(name, ())) for name in self.names},
            forget=() if desired else self.names,
        )
        self.applied = desired

    def layers(self, desired: dict[int, Strength]) -> Sequence[Layer]:
        return layers_of((dict.fromkeys(self.names, STACK[patch]), strength) for patch, strength in desired.items())

    @invariant()
    def is_what_the_set_says(self) -> None:
        """The digests can be predicted from the pristine base and the set, whatever came before."""
        terms = [Term(STACK[patch], strength) for patch, strength in sorted(self.applied.items())]
        digests = self.host.digests(self.names)
        for name in self.names:
            assert digests[name] == digest_tensor(compose(self.pristine[name], terms))

    @invariant()
    def is_the_base_when_nothing_is_applied(self) -> None:
        if not self.applied:
            assert all(factories.same_bits(self.host.read([n])[n], self.pristine[n]) for n in self.names)
            assert not self.host.kept()


Walk.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestWalk = Walk.TestCase


def test_patch_by_patch_is_all_at_once() -> None:
    """Adding exact sums one patch after the other is the same number as their sum; only then is it rounded."""
    terms = [Term(increment, Strength(s)) for increment, s in zip(STACK, (16, -16, 64, -64, 1, -1, 33, 8), strict=True)]
    total = torch.zeros(D_OUT, D_IN, dtype=torch.float64)
    for term in terms:
        total += term.increment.dense(term.strength)
    assert torch.equal(total, sum_increments(terms))


def test_reverting_any_one_is_never_having_applied_it() -> None:
    terms = [Term(increment) for increment in STACK]
    for dtype in factories.DTYPES:
        for left_out in range(len(terms)):
            rest = terms[:left_out] + terms[left_out + 1 :]
            cancelled = [*terms, Term(STACK[left_out], Strength(-ONE.sixteenths))]
            assert factories.same_bits(compose(base(dtype), rest), compose(base(dtype), cancelled))


@given(st.lists(st.tuples(st.sampled_from([1, 3, 40, 300]), dtypes, st.booleans()), max_size=7), st.integers(1, 3))
def test_layers_composed_together_are_those_composed_alone(
    layers: list[tuple[int, torch.dtype, bool]], count: int
) -> None:
    """Whether they share detectors, and so a product, or have their own."""
    shared = [factories.increment(seed, 1, D_IN, rank=2).A for seed in range(count)]
    bases, stack = {}, []
    for number, (rows, dtype, own) in enumerate(layers):
        made = [factories.increment(100 + 10 * number + seed, rows, D_IN, rank=2) for seed in range(count)]
        factors = [each if own else Increment(A.clone(), each.B) for each, A in zip(made, shared, strict=True)]
        stack.append(Layer(ParamName(f"{number}"), tuple(Term(each, Strength(8)) for each in factors)))
        bases[stack[-1].name] = factories.weights(number, rows, D_IN, dtype)
    together = compose_all(bases, stack)
    assert together.keys() == bases.keys()
    for layer in stack:
        assert factories.same_bits(together[layer.name], compose(bases[layer.name], layer.terms))
