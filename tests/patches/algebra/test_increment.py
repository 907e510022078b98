"""One increment: what it reads, what it is worth. Its laws are in tests/laws/test_grid.py."""

import pytest
import torch
from support.values import factories

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AlgebraError


def test_an_increment_is_the_product_of_its_factors() -> None:
    found = Increment(torch.tensor([[0.5, -0.25]]), torch.tensor([[2.0], [0.0], [-1.0]]))
    assert found.rank == 1
    assert found.shape == (3, 2)
    assert found.dense().tolist() == [[1.0, -0.5], [0.0, 0.0], [-0.5, 0.25]]
    assert found.dense(Strength(-8)).tolist() == [[-0.5, 0.25], [0.0, 0.0], [0.25, -0.125]]
    assert found.dense().dtype == torch.float64


def test_norms_move_from_detectors_into_responses() -> None:
    found = Increment.quantised(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 7.0]]))
    assert torch.linalg.vector_norm(found.A[0]).item() == pytest.approx(1.0, abs=3e-4)
    assert found.B[0].tolist() == [pytest.approx(5.0, abs=2e-3), 0.0]
    assert found.dense().tolist() == [pytest.approx([3.0, 4.0], rel=1e-5)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_any_float_is_quantised_to_float32(dtype: torch.dtype) -> None:
    A, B = factories.normal(1, 3, 8).to(dtype), factories.normal(2, 5, 3).to(dtype)
    found = Increment.quantised(A, B)
    assert {found.A.dtype, found.B.dtype} == {torch.float32}
    assert float((found.dense() - B.double() @ A.double()).norm() / (B.double() @ A.double()).norm()) < 1e-5


def test_the_default_strength_is_one() -> None:
    assert ONE == Strength(16) == Strength.parse("1") == Strength.parse("+1.0")
    assert str(ONE) == "1"
    assert [str(Strength(s)) for s in (-64, -1, 0, 8, 40)] == ["-4", "-0.0625", "0", "0.5", "2.5"]
    assert Strength(-1) < Strength(0) < Strength(1)


def test_increments_that_were_rounded_together_are_those_rounded_alone() -> None:
    A, B = factories.normal(1, 6, 8), factories.normal(2, 5, 6)
    parts = Increment.quantised(A, B).split([1, 3, 2])
    for part, own in zip(parts, (slice(0, 1), slice(1, 4), slice(4, 6)), strict=True):
        alone = Increment.quantised(A[own], B[:, own])
        assert factories.same_bits(part.A, alone.A)
        assert factories.same_bits(part.B, alone.B)
        assert part.response.flags.c_contiguous
        assert part.detector.base is None  # keeps no other alive


@pytest.mark.parametrize("ranks", [[1, 2], [1, 3, 3], [6, 0]])
def test_parts_make_the_whole(ranks: list[int]) -> None:
    with pytest.raises(AlgebraError, match="expected ranks that make 6"):
        Increment.quantised(factories.normal(1, 6, 8), factories.normal(2, 5, 6)).split(ranks)
