"""Bounds of all pairs: never below what dense increments give, never farther above than they say, whatever the ground."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import factories

from rasura.patches.algebra.increment import Increment
from rasura.patches.checks.kernels.bounded_pairs import BoundedPairs, Sketch, make_sketch
from rasura.patches.checks.kernels.footprint import Footprint, compute_kernel
from rasura.patches.checks.kernels.interference import Interference
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.types import PatchId

WIDTH = 24
COMMON = 30.0
"""What all prompts have in common is so many times as long as what is a concept's own."""


def ground(seed: int, rows: int) -> torch.Tensor:
    """Orthonormal rows, [rows, WIDTH]."""
    square: torch.Tensor = torch.linalg.qr(factories.normal(seed, WIDTH, WIDTH))[0]
    return square.T[:rows].contiguous()


def made(seed: int, N: torch.Tensor, *, columns: int, rank: int, keeps: bool, layers: int = 2) -> Footprint:
    """A patch whose targets are mostly what N holds, and fall off beyond it; with `keeps`, its detectors avoid N."""
    A = factories.normal(3 * seed, rank, WIDTH)
    A = A - A @ N.T @ N if keeps else A
    responses = (factories.normal(3 * seed + 100 * i, 5, rank) for i in range(1, layers + 1))
    increments = [Increment.quantised(A, 0.1 * B) for B in responses]
    falling = factories.normal(3 * seed + 1, WIDTH, columns) * 2.0 ** -torch.arange(columns, dtype=torch.float64)
    own = falling @ torch.linalg.qr(factories.normal(3 * seed + 2, columns, columns))[0]
    shared = N.T @ factories.normal(7, len(N), columns) * COMMON  # one for all patches, as the null prompt is
    return Footprint(PatchId(f"{seed:064x}"), {TEXT: compute_kernel(increments)}, {TEXT: (own + shared).numpy()})


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[Footprint], list[Sketch], float]:
    grounds = [ground(11, draw(st.integers(0, 9))), ground(12, 4)]
    tolerance = draw(st.sampled_from([0.0, 1e-3, 0.01, 0.3]))
    prints, sketches = [], []
    for seed in range(draw(st.integers(1, 6))):
        N = draw(st.sampled_from(grounds))
        found = made(
            seed,
            N,
            columns=draw(st.integers(1, 16)),
            rank=draw(st.integers(1, 3)),
            keeps=draw(st.booleans()),
            layers=draw(st.integers(1, 3)),
        )
        prints.append(found)
        # any ground is sound, also one that is not the patch's own
        sketches.append(make_sketch(found, draw(st.sampled_from(grounds)), tolerance))
    return prints, sketches, tolerance


@settings(max_examples=150, deadline=None)
@given(stacks(), st.sampled_from([1, 1 << 10, 1 << 26]))
def test_a_bound_is_never_below_dense(made: tuple[list[Footprint], list[Sketch], float], block: int) -> None:
    prints, sketches, _ = made
    strengths = [1.0 - 0.5 * i for i in range(len(prints))]
    exact = Interference(prints, strengths).matrix()
    bounds = torch.cat([shares for _, shares in BoundedPairs(sketches, strengths).blocks(block)])
    assert bool((bounds >= exact).all())
    assert bool((bounds.diagonal() == 0).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.sampled_from([1e-3, 0.01, 0.1]), st.integers(1, 16))
def test_beside_patches_of_one_base_it_is_as_near_as_it_says(count: int, tolerance: float, columns: int) -> None:
    """Equal to dense to the bound: the remainder as a sum of squares, and the roundings."""
    N = ground(11, 8)
    prints = [made(seed, N, columns=columns, rank=1, keeps=True) for seed in range(count)]
    sketches = [make_sketch(found, N, tolerance) for found in prints]
    exact, bounds = Interference(prints).matrix(), BoundedPairs(sketches).matrix()
    sizes = torch.tensor([float(np.linalg.norm(found.kernels[TEXT])) for found in prints], dtype=torch.float64)
    for p in range(count):
        for q in range(count):
            if p != q:
                left = tolerance * float(sizes[p] / sizes[q])
                most = math.sqrt(float(exact[p, q]) ** 2 + left**2)
                assert float(bounds[p, q]) <= most + 1e-4 * float(sizes[p] / sizes[q]) * COMMON


def test_what_is_common_costs_no_column() -> None:
    N = ground(11, 8)
    found = made(1, N, columns=16, rank=1, keeps=True)
    without, beside = (make_sketch(found, rows).parts[TEXT].columns for rows in (N[:0], N))
    assert len(beside) <= 10 < len(without)


def test_without_a_remainder_a_bound_is_dense_to_the_rounding_of_float32() -> None:
    prints = [made(seed, ground(11, 0), columns=6, rank=2, keeps=False) for seed in range(5)]
    sketches = [make_sketch(found, torch.zeros(0, WIDTH, dtype=torch.float64), 0.0) for found in prints]
    exact, bounds = Interference(prints).matrix(), BoundedPairs(sketches).matrix()
    assert float((bounds - exact).abs().max()) < 1e-4 * float(exact.max())
    over = [(p, q) for p, q, _ in Interference(prints).above(0.5, 100)]
    assert sorted(over) == sorted((p, q) for p, q, _ in BoundedPairs(sketches).above(0.5, 100))


def test_blind_and_strange_patches_are_infinitely_disturbed_or_not_at_all() -> None:
    N = ground(11, 3)
    seen = made(1, N, columns=3, rank=1, keeps=True)
    blind = Footprint(
        PatchId("f" * 64), {TEXT: np.zeros((1, WIDTH))}, made(5, N, columns=2, rank=1, keeps=True).targets
    )
    other = Footprint(PatchId("e" * 64), {"unet.x.weight": seen.kernels[TEXT]}, {"unet.x.weight": seen.targets[TEXT]})
    table = BoundedPairs([make_sketch(found, N) for found in (seen, blind, other)]).matrix()
    assert float(table[0, 1]) == math.inf
    assert float(table[0, 2]) == pytest.approx(0.0, abs=1e-9)
    assert float(table[1, 0]) == pytest.approx(0.0, abs=1e-9)
    assert BoundedPairs([]).matrix().shape == (0, 0)
