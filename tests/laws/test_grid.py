"""The grid: what quantisation gives lies on it, stays on it, and nothing off it gets in."""

from decimal import Decimal
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.values import factories

from rasura.patches.algebra.increment import DETECTOR_STEP, RESPONSE_LIMIT, RESPONSE_STEP, Increment
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import (
    AlgebraError,
    BoundExceededError,
    NotFiniteError,
    OffGridError,
    StrengthError,
)

finite = st.floats(-1e3, 1e3, allow_subnormal=False) | st.sampled_from([0.0, -0.0, 1e-12, 2.0**-22, 1.0, 1e-200])


@st.composite
def factor_pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Real A [rank, d_in] and B [d_out, rank]; also odd ones: rows of zeros, one huge entry, rows on the grid."""
    rank, d_in, d_out = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rows = st.lists(finite, min_size=d_in, max_size=d_in)
    A = torch.tensor(draw(st.lists(rows, min_size=rank, max_size=rank)), dtype=torch.float64)
    B = factories.normal(draw(st.integers(0, 2**32)), d_out, rank) * draw(st.sampled_from([1e-6, 0.01, 1.0]))
    return A, B / torch.linalg.vector_norm(A, dim=1).clamp(min=1.0)[None, :]


def on_grid(factor: torch.Tensor, step: float) -> bool:
    return all((Fraction(value) / Fraction(step)).denominator == 1 for value in factor.double().flatten().tolist())


@given(factor_pairs())
def test_quantised_factors_lie_on_the_grid_with_rows_of_norm_at_most_one(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    found = Increment.quantised(*pair)
    assert on_grid(found.A, DETECTOR_STEP)
    assert on_grid(found.B, RESPONSE_STEP)
    for row in found.A.double().tolist():
        assert sum(Fraction(value) ** 2 for value in row) <= 1
    assert all(abs(value) < RESPONSE_LIMIT for value in found.B.flatten().tolist())
    assert not any(str(value) == "-0.0" for f in (found.A, found.B) for value in f.flatten().tolist())


@given(factor_pairs())
def test_quantising_twice_is_quantising_once(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    once = Increment.quantised(*pair)
    twice = Increment.quantised(once.A, once.B)
    assert torch.equal(once.A, twice.A)
    assert torch.equal(once.B, twice.B)


@pytest.mark.parametrize("d_in", [1, 64, 768, 2048])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_quantising_twice_is_quantising_once_in_wide_rows(d_in: int, size: float) -> None:
    """Responses near the limit feel any change of a row's norm."""
    once = Increment.quantised(factories.normal(1, 8, d_in) * size, torch.full((3, 8), 60.0 / size / d_in**0.5 / 2))
    twice = Increment.quantised(once.A, once.B)
    assert torch.equal(once.A, twice.A)
    assert torch.equal(once.B, twice.B)
    assert float(torch.linalg.vector_norm(once.A.double(), dim=1).max()) <= 1


@given(factor_pairs())
def test_quantising_moves_an_increment_by_at_most_the_grid(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    A, B = pair
    found = Increment.quantised(A, B)
    norms = torch.linalg.vector_norm(A, dim=1)
    assume(bool(((norms == 0) | (norms > 1e-150)).all()))  # below, squares are lost
    bound = (B.abs() * norms).sum(1).max() * DETECTOR_STEP + A.shape[0] * RESPONSE_STEP
    assert float((found.dense() - B @ A).abs().max()) <= float(bound)


@given(factor_pairs(), factories.strengths)
def test_the_responses_bound_every_entry(pair: tuple[torch.Tensor, torch.Tensor], strength: Strength) -> None:
    """No entry of s·B·A exceeds Σ|s·b| of its row, because |A| ≤ 1: what the exact sum rests on."""
    found = Increment.quantised(*pair)
    bound = found.B.to(torch.float64).abs().sum(dim=1) * abs(strength.value)
    assert bool((found.dense(strength).abs() <= bound[:, None]).all())


@given(st.integers(-64, 64))
def test_strengths_read_back(sixteenths: int) -> None:
    strength = Strength(sixteenths)
    assert Strength.parse(str(strength)) == strength
    assert Fraction(strength.value) == Fraction(sixteenths, 16)
    assert "E" not in str(strength)


@given(st.decimals(-10, 10, places=6))
def test_strengths_off_the_grid_or_out_of_range_are_refused(number: Decimal) -> None:
    sixteenths = Fraction(number) * 16
    if sixteenths.denominator == 1 and abs(sixteenths) <= 64:
        assert Strength.parse(f"{number:f}").sixteenths == sixteenths
    else:
        with pytest.raises(StrengthError) as caught:
            Strength.parse(f"{number:f}")
        offered = caught.value.hint.removeprefix("--strength ")
        assert abs(Strength.parse(offered).value) <= 4


@given(st.text(max_size=30))
def test_no_text_is_read_as_a_strength_by_accident(text: str) -> None:
    try:
        strength = Strength.parse(text)
    except StrengthError:
        return
    assert Fraction(text) == Fraction(strength.sixteenths, 16)
    assert text.isascii()


ODD = "|| 1|1 |1e0|1e999999|1e-9999999|nan|sNaN|inf|-Infinity|1_0|１|0x1|1/2|--1|4.0625|-4.0625|0.1|5"
LONG = ("0.0625000000000000000000000000000000001", "9" * 100_000)


@pytest.mark.parametrize("text", [*ODD.split("|"), *LONG], ids=lambda text: text[:20])
def test_odd_strengths_are_refused(text: str) -> None:
    with pytest.raises(StrengthError) as caught:
        Strength.parse(text)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("sixteenths", [65, -65, 10**9])
def test_strengths_out_of_range_cannot_be_built(sixteenths: int) -> None:
    with pytest.raises(StrengthError, match="expected -4 to 4"):
        Strength(sixteenths)


STEP_A, STEP_B = DETECTOR_STEP, RESPONSE_STEP
ONE = [[1.0]]
OFF: dict[str, tuple[object, object, type[AlgebraError]]] = {
    "half a step in A": ([[STEP_A / 2]], ONE, OffGridError),
    "half a step in B": (ONE, [[STEP_B / 2]], OffGridError),
    "the smallest float32 in A": ([[2.0**-149]], ONE, OffGridError),
    "one third": ([[1 / 3]], ONE, OffGridError),
    "NaN in A": ([[float("nan")]], ONE, NotFiniteError),
    "infinity in B": (ONE, [[float("inf")]], NotFiniteError),
    "a row a step longer than 1": ([[1.0, STEP_A]], ONE, BoundExceededError),
    "a row of norm √2": ([[1.0, 1.0]], ONE, BoundExceededError),
    "a response of 64": (ONE, [[64.0]], BoundExceededError),
    "a response of -64": (ONE, [[-64.0]], BoundExceededError),
    "no rank": (torch.zeros(0, 2), torch.zeros(2, 0), AlgebraError),
    "no inputs": (torch.zeros(1, 0), ONE, AlgebraError),
    "no outputs": (ONE, torch.zeros(0, 1), AlgebraError),
    "ranks that differ": (torch.zeros(2, 3), torch.zeros(4, 3), AlgebraError),
    "a vector": (torch.zeros(3), ONE, AlgebraError),
    "three dimensions": (torch.zeros(1, 1, 1), ONE, AlgebraError),
}


@pytest.mark.parametrize("flaw", OFF)
def test_factors_off_the_grid_are_refused(flaw: str) -> None:
    a, b, error = OFF[flaw]
    A, B = (torch.as_tensor(f, dtype=torch.float32) for f in (a, b))
    with pytest.raises(error) as caught:
        Increment(A, B)
    assert type(caught.value) is error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32], ids=str)
def test_factors_are_float32(dtype: torch.dtype) -> None:
    with pytest.raises(OffGridError, match="expected float32"):
        Increment(torch.ones(1, 1, dtype=dtype), torch.ones(1, 1))


@settings(max_examples=20)
@given(st.sampled_from([float("nan"), float("inf"), -float("inf")]), st.booleans())
def test_quantisation_refuses_what_is_not_finite(value: float, in_detector: bool) -> None:
    A, B = torch.ones(2, 3), torch.ones(4, 2)
    (A if in_detector else B)[0, 0] = value
    with pytest.raises(NotFiniteError):
        Increment.quantised(A, B)


def test_quantisation_refuses_responses_of_64_and_more() -> None:
    with pytest.raises(BoundExceededError, match="too close to what is protected"):
        Increment.quantised(torch.ones(1, 4), torch.tensor([[40.0]]))
    assert float(Increment.quantised(torch.ones(1, 4), torch.tensor([[31.9]])).B.max()) < 64
