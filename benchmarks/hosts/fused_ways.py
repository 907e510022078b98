"""The ways of adding the base to a sum, rounding and storing, and the layers that they are tried on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from host_layers import patch, shapes

from rasura.patches._io.tensor_bytes import digest_tensor, is_finite
from rasura.patches.algebra import fused_add
from rasura.patches.algebra.compose import Layer, layers_of
from rasura.patches.algebra.rounding import round_into
from rasura.patches.algebra.strength import ONE
from rasura.patches.types import ParamName

__all__ = ["Step", "Way", "Work", "once", "sees_overflow", "sweep", "ties", "timed", "ways"]

Step: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Result, base and sums of some rows → [1], not zero if the result is not finite; the sums may be used up."""
ROWS: Final = {"cpu": 256, "cuda": 2**20}
"""Rows at a time, as in `rasura.patches.algebra.compose`."""


@dataclass(frozen=True, slots=True)
class Way:
    """A step and its name."""

    name: str
    step: Step


@dataclass(frozen=True, slots=True)
class Work:
    """What some patches do to the layers of a model, on one device."""

    layers: tuple[Layer, ...]
    A: torch.Tensor
    """[Σ rank, d_in] float64, of all layers."""
    Bs: Sequence[torch.Tensor]
    """[d_out, Σ rank] float64 of each layer."""
    bases: Sequence[torch.Tensor]
    results: Sequence[torch.Tensor]
    sums: Sequence[torch.Tensor]

    @classmethod
    def of(cls, kind: str, dtype: torch.dtype, count: int, device: str) -> Work:
        """So many patches on that model."""
        generator = torch.Generator().manual_seed(0)
        layers = layers_of((patch(kind, seed), ONE) for seed in range(count))
        sizes = {ParamName(f"unet.{path}.weight"): (out, width) for path, out, width in shapes(kind)}
        drawn = {name: torch.randn(*size, generator=generator) * 0.03 for name, size in sizes.items()}
        bases = [drawn[layer.name].to(dtype).to(device) for layer in layers]
        A = torch.cat([term.increment.A.double() for term in layers[0].terms]).to(device)
        Bs = [torch.cat([term.increment.B.double() for term in layer.terms], dim=1).to(device) for layer in layers]
        sums = [B @ A for B in Bs]
        return cls(layers, A, Bs, bases, [torch.empty_like(base) for base in bases], sums)

    def refill(self) -> None:
        """The sums as they were before a way used them up."""
        for B, sums in zip(self.Bs, self.sums, strict=True):
            torch.mm(B, self.A, out=sums)

    def pieces(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Result, base, sums and B, as many rows at a time as composing takes."""
        rows = ROWS[self.A.device.type]
        for each in zip(self.results, self.bases, self.sums, self.Bs, strict=True):
            for start in range(0, len(each[0]), rows):
                result, base, sums, B = (tensor[start : start + rows] for tensor in each)
                yield result, base, sums, B

    def digests(self) -> list[str]:
        """Of the results."""
        return [digest_tensor(result) for result in self.results]

    def traffic(self) -> int:
        """Bytes that have to be read and written: sums, bases, results."""
        return sum(base.numel() * (8 + 2 * base.element_size()) for base in self.bases)


def sweep(way: Way, work: Work, *, product: bool) -> None:
    """All layers once, from sums that are there, or with the product that makes them."""
    broken: dict[int, torch.Tensor] = {}
    for result, base, sums, B in work.pieces():
        room = sums
        if product:  # into the same memory again and again, as composing does
            room = work.sums[0][: len(B)] if len(work.sums[0]) >= len(B) else sums
            torch.mm(B, work.A, out=room)
        told = way.step(result, base, room)
        broken[id(told)] = told
    assert not bool(torch.cat([*broken.values()]).any())


def ways(device: str) -> Iterator[Way]:
    """Those that this device has; each is done with before the next one is made."""
    yield Way("plain steps", _plain(device))
    yield Way("torch.compile", _compiled({}))
    yield Way("torch.compile, emulate_precision_casts", _compiled({"emulate_precision_casts": True}))
    if device == "cuda":
        yield Way("Triton kernel", _kernel(device))


def _plain(device: str) -> Step:
    room: dict[torch.Size, torch.Tensor] = {}
    fine, broken = torch.zeros(1, dtype=torch.int32, device=device), torch.ones(1, dtype=torch.int32, device=device)

    def step(result: torch.Tensor, base: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        if base.shape not in room:
            room[base.shape] = torch.empty_like(base, dtype=torch.float32)
        round_into(result, base, sums, room[base.shape])
        return fine if is_finite(result) else broken

    return step


def _rounded(result: torch.Tensor, base: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """`round_into` and the look for what is not finite, for compilers."""
    kept = torch.where(sums == 0, -0.0, sums)
    result.copy_((kept + base).to(torch.float32).to(base.dtype))
    return (~torch.isfinite(result)).any().reshape(1)


def _compiled(options: dict[str, Any]) -> Step:
    torch.compiler.reset()
    # With `fullgraph`, the limit of compiled shapes raises instead of falling back on plain torch in silence.
    function: Step = torch.compile(_rounded, dynamic=False, fullgraph=True, options=options or None)
    return function


def _kernel(device: str) -> Step:
    broken = torch.zeros(1, dtype=torch.int32, device=device)

    def step(result: torch.Tensor, base: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        fused_add.add_round_store(result, base, sums, broken)
        return broken

    return step


def ties(step: Step, dtype: torch.dtype, device: str) -> int:
    """How many of all positive finite numbers are rounded otherwise than on the CPU, at ties and a crumb beside them.

    A crumb of 2⁻³⁰ of the sum is lost in float32, so that rounding once instead of twice shows.
    """
    largest = int(torch.tensor(torch.finfo(dtype).max, dtype=dtype).view(torch.int16))
    base = torch.arange(largest, dtype=torch.int16).view(dtype)[None]
    half = ((base.view(torch.int16) + 1).view(dtype).double() - base.double()) / 2
    wrong = 0
    for sums in (half, half * (1 + 2.0**-30), half * (1 - 2.0**-30)):
        expected, result = torch.empty_like(base), torch.empty_like(base, device=device)
        round_into(expected, base, sums.clone(), torch.empty_like(base, dtype=torch.float32))
        step(result, base.to(device), sums.to(device))
        wrong += int((result.cpu().view(torch.int16) != expected.view(torch.int16)).sum())
    return wrong


def sees_overflow(step: Step, dtype: torch.dtype, device: str) -> bool:
    """Whether it says so where float32 is finite and the result is not: compilers look before the last rounding."""
    base = torch.full((1, 4), torch.finfo(dtype).max, dtype=dtype, device=device)
    half = (base.double() - (base.view(torch.int16) - 1).view(dtype).double()) / 2
    result = torch.empty_like(base)
    told = step(result, base, half)
    assert not is_finite(result)
    return bool(told.any())


def timed(work: Callable[[], object], device: str, repeats: int) -> float:
    """Median milliseconds, after one run that does not count."""
    once(work, device)
    return statistics.median(once(work, device) for _ in range(repeats))


def once(work: Callable[[], object], device: str) -> float:
    """Milliseconds, by events where there are any."""
    if device == "cpu":
        begun = time.perf_counter()
        work()
        return (time.perf_counter() - begun) * 1000
    start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
