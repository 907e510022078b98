"""The kernel's logic, run by Triton's interpreter; `test_triton.py` runs this file in a process of its own.

The interpreter computes with numpy on the CPU: it shows that the steps are the right ones, and nothing of a device.
"""

import numpy as np
import pytest
import torch
from support.values import factories, hard_sums

from rasura.patches.algebra.fused_add import add_round_store
from rasura.patches.algebra.rounding import Blocks


def kernel(base: torch.Tensor, sums: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The result, and whether the kernel says that it is finite."""
    result, broken = torch.empty_like(base), torch.zeros(1, dtype=torch.int32)
    with np.errstate(all="ignore"):
        add_round_store(result, base, sums, broken)
    return result, not int(broken)


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_hard_values_have_the_bits_of_the_plain_steps(dtype: torch.dtype) -> None:
    for name, base, sums, expected in hard_sums.cases(dtype):
        result, finite = kernel(base, sums)
        assert hard_sums.wrong(result, expected) == 0, name
        assert not finite
        good = expected.isfinite()
        if good.any():
            assert kernel(base[good], sums[good])[1], name


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("at", [0, 1023, 1024, 2999])
def test_one_number_that_is_not_finite_is_seen(dtype: torch.dtype, bad: float, at: int) -> None:
    base, sums = factories.weights(1, 1, 3000, dtype), torch.zeros(1, 3000, dtype=torch.float64)
    assert kernel(base, sums)[1]
    sums[0, at] = bad
    assert not kernel(base, sums)[1]
    base[0, at] = bad
    assert not kernel(base, torch.zeros_like(sums))[1]


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_blocks_are_those_of_the_plain_steps(dtype: torch.dtype, rows: int) -> None:
    """Contiguous bases go through the kernel, the others through the plain steps; zeros keep their signs."""
    A, B = factories.normal(1, 3, 20), factories.normal(2, 60, 3)
    B[5] = 0
    straight, turned = factories.weights(3, 40, 20, dtype), factories.weights(4, 20, 20, dtype).T
    found = {}
    for fuse in (True, False):
        blocks = Blocks(A, rows, fuse=fuse)
        results = [torch.empty_like(straight), torch.empty_like(turned)]
        for result, base, at in zip(results, (straight, turned), (0, 40), strict=True):
            blocks.round_into(result, base, B, at)
        assert blocks.finite()
        found[fuse] = results
    assert all(map(factories.same_bits, found[True], found[False]))
    assert factories.same_bits(found[True][0][5], straight[5])
