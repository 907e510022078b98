"""Two numbers of which one is larger never read alike."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches.plain_numbers import say_beside, say_number, say_over

_FINITE = st.floats(min_value=1e-12, max_value=1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.05, "0.05"),
        (0.00012, "0.00012"),
        (12345.0, "12300"),
        (0, "0"),
        (1.9666, "1.97"),
        (-0.25, "-0.25"),
    ],
)
def test_a_number_has_no_exponent(value: float, said: str) -> None:
    assert say_number(value) == said


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (0.05001, 0.05, ("0.05001", "0.05")),
        (0.32004, 0.32, ("0.32004", "0.32")),
        (256.02, 256, ("256.02", "256")),
        (2.4e-7, 0.001, ("< 0.0001", "0.001")),
        (0.0002, 0.001, ("0.0002", "0.001")),
        (0.0009999, 0.001, ("0.0009999", "0.001")),
        (4e-4, 0.05, ("< 0.001", "0.05")),
        (4.69e-7, 1e-6, ("0.000000469", "0.000001")),
        (1e-12, 0.02, ("0", "0.02")),
        (0.05, 0.05, ("0.05", "0.05")),
    ],
)
def test_a_number_beside_its_limit(value: float, limit: float, said: tuple[str, str]) -> None:
    assert say_beside(value, limit) == said


@given(_FINITE, _FINITE)
def test_what_differs_reads_differently_and_in_the_right_order(value: float, limit: float) -> None:
    one, other = say_beside(value, limit)
    assert not re.search(r"\de[+-]?\d", one + other)
    assert (one == other) == (value == limit)
    if not one.startswith("<"):
        assert (float(one) > float(other)) == (value > limit)
    else:
        assert value < float(one.removeprefix("< ")) < limit


def test_a_refusal_says_both() -> None:
    assert say_over(0.0502, 0.05) == "0.0502, limit 0.05"
    assert say_over(math.inf, 0.05) == "inf, limit 0.05"
