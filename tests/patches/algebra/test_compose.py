"""Composition's own arithmetic and refusals. Its laws are in tests/laws/test_composition.py."""

import pytest
import torch
from support.values import factories

from rasura.patches.algebra.compose import _BLOCK, Layer, Term, bound_sum, compose, layers_of, sum_increments
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AlgebraError, BoundExceededError, NotFiniteError
from rasura.patches.types import ParamName

EYE = Increment(torch.eye(2), torch.eye(2))


def test_one_example_by_hand() -> None:
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert compose(base, [Term(EYE), Term(EYE, Strength(-8))]).tolist() == [[1.5, 2.0], [3.0, 4.5]]


def test_the_sum_is_rounded_to_float32_before_it_is_rounded_to_the_weights() -> None:
    """1 + 2⁻¹¹ + 2⁻⁴⁰ is above the middle of two float16 numbers, and its float32 is that middle: it goes to the even."""
    increment = factories.exact_increment([[2**22], [1]], [[2**7, 1]])
    assert float(increment.dense()) == 2.0**-11 + 2.0**-40
    assert compose(torch.ones(1, 1, dtype=torch.float16), [Term(increment)]).item() == 1.0


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_blocks_of_rows_have_no_seams(dtype: torch.dtype, more: int) -> None:
    rows = 2 * _BLOCK + more
    base, terms = factories.weights(4, rows, 5, dtype), [Term(factories.increment(s, rows, 5, 2)) for s in range(3)]
    expected = (base.double() + sum_increments(terms)).float().to(dtype)
    assert torch.equal(compose(base, terms), expected)
    assert factories.same_bits(compose(base, [Term(t.increment, Strength(0)) for t in terms]), base)


def test_layers_are_grouped_and_sorted_by_name() -> None:
    b, a = ParamName("b"), ParamName("a")
    half = Strength(8)
    assert layers_of([({b: EYE}, ONE), ({a: EYE, b: EYE}, half)]) == (
        Layer(a, (Term(EYE, half),)),
        Layer(b, (Term(EYE), Term(EYE, half))),
    )
    assert layers_of([]) == ()


def test_nothing_to_add_has_no_bound_and_no_sum() -> None:
    assert bound_sum([]) == 0.0
    with pytest.raises(AlgebraError, match="one shape"):
        sum_increments([])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn, torch.complex64], ids=str)
def test_weights_of_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    for terms in ([], [Term(EYE)]):
        with pytest.raises(AlgebraError, match="expected float16, bfloat16 or float32"):
            compose(torch.zeros(2, 2).to(dtype), terms)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AlgebraError, match="does not fit weights"):
        compose(torch.zeros(2, 3), [Term(EYE)])
    with pytest.raises(AlgebraError, match="one shape"):
        compose(torch.zeros(2, 2), [Term(EYE), Term(factories.increment(1, 3, 2, 1))])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_base_that_is_not_finite_is_refused(bad: float) -> None:
    base = torch.zeros(2, 2)
    base[0, 1] = bad
    with pytest.raises(NotFiniteError, match=r"not finite in torch\.float32"):
        compose(base, [Term(EYE)])


def test_overflow_of_the_dtype_is_refused() -> None:
    base = torch.full((2, 2), 65504.0)
    loud = Increment(torch.eye(2), torch.eye(2) * 32)
    with pytest.raises(NotFiniteError, match=r"not finite in torch\.float16") as caught:
        compose(base.half(), [Term(loud)])
    assert "--strength" in caught.value.hint
    assert compose(base, [Term(loud)])[0, 0] == 65536.0


def test_the_bound_of_a_stack_is_that_of_its_worst_row() -> None:
    terms = [Term(Increment(torch.eye(2), torch.tensor([[60.0, 0.0], [1.0, 1.0]])), Strength(s)) for s in (32, -32)]
    assert bound_sum(terms) == 240.0
    assert torch.equal(sum_increments(terms), torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(BoundExceededError) as caught:
        sum_increments([*terms, Term(Increment(torch.eye(2), torch.eye(2) * 16))])
    assert caught.value.details["bound"] == "256"


def test_bases_need_not_be_contiguous_nor_without_gradient() -> None:
    base = torch.nn.Parameter(factories.weights(3, 6, 6, torch.float32))
    increment = factories.increment(3, 6, 6, 2)
    expected = compose(base.detach().clone(), [Term(increment)])
    assert factories.same_bits(compose(base, [Term(increment)]), expected)
    assert not compose(base, [Term(increment)]).requires_grad
    turned = base.detach().T.contiguous().T
    assert factories.same_bits(compose(turned, [Term(increment)]), expected)
