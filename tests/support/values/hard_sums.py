"""Bases and float64 sums at which a wrong rounding shows: ties, crumbs beyond float32, subnormals, overflow, zeros."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from support.values import factories

from rasura.patches.algebra.rounding import round_into

Sums = Callable[[torch.Tensor], torch.Tensor]
COUNT: Final = 65536


def integers(dtype: torch.dtype) -> torch.dtype:
    return torch.int32 if dtype == torch.float32 else torch.int16


def patterns(dtype: torch.dtype) -> torch.Tensor:
    """[65536] all values of 16 bits, NaN and infinity too; of float32 those with sixteen low bits of 0, 1 or all ones."""
    found = torch.arange(-COUNT // 2, COUNT // 2, dtype=integers(dtype))
    if dtype == torch.float32:
        low = torch.tensor([0, 1, 0xFFFF, 0x8000], dtype=torch.int32).repeat(COUNT // 4)
        found = (found << 16) | low
    return found.view(dtype)


def _step(base: torch.Tensor) -> torch.Tensor:
    """To the next number away from zero, float64; past the largest one, as far as before it."""
    beyond = (base.view(integers(base.dtype)) + 1).view(base.dtype).double()
    before = (base.view(integers(base.dtype)) - 1).view(base.dtype).double()
    here = base.double()
    return torch.where(beyond.isfinite(), beyond - here, here - before).nan_to_num(0.0, 0.0, 0.0)


def _grid(base: torch.Tensor) -> torch.Tensor:
    """What patches make: multiples of 2⁻⁴⁴ below 2⁸."""
    values = torch.randint(-(2**52) + 1, 2**52, base.shape, generator=factories.generator(1))
    sizes = torch.randint(0, 52, base.shape, generator=factories.generator(2))
    return (values >> sizes).double() * 2.0**-44


SUMS: Final[Mapping[str, Sums]] = {
    "plus zero": lambda base: torch.zeros_like(base, dtype=torch.float64),
    "minus zero": lambda base: torch.full_like(base, -0.0, dtype=torch.float64),
    "ties": lambda base: _step(base) / 2,
    "above ties, seen by float64 alone": lambda base: _step(base) / 2 * (1 + 2.0**-30),
    "below ties, seen by float64 alone": lambda base: _step(base) / 2 * (1 - 2.0**-30),
    "above ties, seen by float32": lambda base: _step(base) / 2 + base.double().abs() * 2.0**-22,
    "quarters": lambda base: _step(base) / 4,
    "cancelling": lambda base: -base.double().nan_to_num(0.0, 0.0, 0.0),
    "cancelling but for 2⁻²⁵": lambda base: 2.0**-25 - base.double().nan_to_num(0.0, 0.0, 0.0),
    "cancelling but for −2⁻⁴⁴": lambda base: -(2.0**-44) - base.double().nan_to_num(0.0, 0.0, 0.0),
    "grid": _grid,
    "subnormals of float32": lambda base: _grid(base) * 2.0**-110,
    "half of the least float32": lambda base: torch.full_like(base, 2.0**-150, dtype=torch.float64),
    "subnormals of float64": lambda base: torch.full_like(base, -1e-310, dtype=torch.float64),
    "beyond float16": lambda base: torch.full_like(base, 65519.0, dtype=torch.float64),
    "beyond float32": lambda base: torch.full_like(base, 3.4028235677973366e38, dtype=torch.float64),
    "infinite": lambda base: torch.full_like(base, -torch.inf, dtype=torch.float64),
    "no numbers": lambda base: torch.full_like(base, torch.nan, dtype=torch.float64),
}


def cases(dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A name, base, sums and what the plain steps make of them on this CPU, [1, n] each."""
    base = patterns(dtype)[None]
    for name, sums in SUMS.items():
        yield name, base, sums(base), plain(base, sums(base))


def plain(base: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    result = torch.empty_like(base)
    round_into(result, base, sums.clone(), torch.empty_like(base, dtype=torch.float32))
    return result


def wrong(got: torch.Tensor, expected: torch.Tensor) -> int:
    """How many elements differ in bits; any NaN is like any other, since every NaN is refused."""
    bits = integers(got.dtype)
    return int(((got.view(bits) != expected.view(bits)) & ~(got.isnan() & expected.isnan())).sum())
