"""All pairs by GEMMs are what dense increments give, whatever the ranks, the sharing of detectors, and the blocks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import factories

from rasura.patches.algebra.increment import Increment
from rasura.patches.checks.kernels.footprint import Footprint, compact, compute_kernel
from rasura.patches.checks.kernels.interference import (
    Interference,
    Stacked,
    compute_angles,
    compute_cosines,
    compute_energies,
)
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.types import PatchId

WIDTH = 12


def layers(seed: int, outs: tuple[int, ...], rank: int, *, shared: bool) -> list[Increment]:
    first = factories.increment(seed, outs[0], WIDTH, rank)
    rest = (factories.increment(seed + 17 * i, out, WIDTH, rank) for i, out in enumerate(outs[1:], 1))
    return [first, *(Increment(first.A, i.B) if shared else i for i in rest)]


@st.composite
def prints(draw: st.DrawFn) -> tuple[Footprint, list[Increment]]:
    seed = draw(st.integers(0, 10_000))
    outs = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    increments = layers(seed, outs, draw(st.integers(1, 4)), shared=draw(st.booleans()))
    targets = factories.normal(seed + 1, WIDTH, draw(st.integers(1, 5)))
    found = Footprint(PatchId(f"{seed:064x}"), {TEXT: compute_kernel(increments)}, {TEXT: targets.numpy()})
    return found, increments


def dense(increments: list[Increment], inputs: torch.Tensor) -> float:
    return math.sqrt(sum(float((i.dense() @ inputs).square().sum()) for i in increments))


@settings(max_examples=60)
@given(st.lists(prints(), min_size=1, max_size=6), st.sampled_from([1, 1 << 10, 1 << 26]))
def test_every_pair_is_what_dense_increments_give(stack: list[tuple[Footprint, list[Increment]]], block: int) -> None:
    table = Interference(footprint for footprint, _ in stack)
    shares = torch.cat([part for _, part in table.blocks(block)])
    for q, (other, own) in enumerate(stack):
        effect = dense(own, torch.from_numpy(other.targets[TEXT]))
        for p, (_, increments) in enumerate(stack):
            expected = dense(increments, torch.from_numpy(other.targets[TEXT])) / effect if p != q else 0.0
            assert float(shares[p, q]) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@settings(max_examples=40)
@given(st.lists(prints(), min_size=1, max_size=5), prints())
def test_a_newcomer_has_the_row_and_the_column_that_it_would_have(
    stack: list[tuple[Footprint, list[Increment]]], newcomer: tuple[Footprint, list[Increment]]
) -> None:
    known = [footprint for footprint, _ in stack]
    table = Interference([*known, newcomer[0]]).matrix()
    out, back = Interference(known).against(newcomer[0])
    torch.testing.assert_close(out, table[-1, :-1], rtol=1e-12, atol=0)
    torch.testing.assert_close(back, table[:-1, -1], rtol=1e-12, atol=0)


@settings(max_examples=40)
@given(st.lists(prints(), min_size=2, max_size=6), st.floats(0.01, 3))
def test_the_worst_and_those_above_a_limit_are_read_off_the_table(
    stack: list[tuple[Footprint, list[Increment]]], limit: float
) -> None:
    table = Interference(footprint for footprint, _ in stack)
    shares = table.matrix()
    values, who = table.worst()
    assert torch.equal(values, shares.max(0).values)
    assert torch.equal(shares[who, torch.arange(len(stack))], values)
    over = {(p, q): float(shares[p, q]) for p, q in torch.nonzero(shares > limit).tolist()}
    assert {(p, q): value for p, q, value in table.above(limit, 100)} == over
    first = table.above(limit, 1)
    assert [value for *_, value in first] == sorted(over.values(), reverse=True)[:1]


def test_strengths_scale_what_disturbs_and_not_what_is_disturbed() -> None:
    known = [made(seed) for seed in (1, 2, 3)]
    plain, scaled = Interference(known).matrix(), Interference(known, [1.0, -2.0, 0.5]).matrix()
    torch.testing.assert_close(scaled, plain * torch.tensor([1.0, 2.0, 0.5]).double()[:, None])


def test_patches_that_read_nothing_in_common_do_not_disturb_each_other() -> None:
    text, hidden = made(1), made(2, space="text_encoder.fc2.weight")
    assert torch.equal(Interference([text, hidden]).matrix(), torch.zeros(2, 2, dtype=torch.float64))
    assert compute_angles(text, hidden) == []


def test_a_patch_without_effect_is_disturbed_without_end() -> None:
    blind = Footprint(PatchId("f" * 64), {TEXT: np.zeros((1, WIDTH))}, made(5).targets)
    shares = Interference([made(1), blind]).matrix()
    assert float(shares[0, 1]) == math.inf
    assert float(shares[1, 0]) == 0.0


def test_no_patches_have_an_empty_table() -> None:
    assert Interference([]).matrix().shape == (0, 0)
    assert Interference([]).above(0.0, 5) == []


def test_patches_without_rows_keep_their_place() -> None:
    rows = torch.ones(2, 3).double()
    stacked = Stacked.of([None, rows.numpy(), None])
    sums = compute_energies(stacked, Stacked.of([rows[:1].numpy(), None]))
    assert sums.tolist() == [[0.0, 0.0], [18.0, 0.0], [0.0, 0.0]]
    assert not Stacked.of([None, rows.numpy()]).single  # two rows for two patches, and both are the second's


@given(st.integers(0, 1000), st.integers(1, 40))
def test_compacting_keeps_every_norm(seed: int, count: int) -> None:
    rows, inputs = factories.normal(seed, count, WIDTH), factories.normal(seed + 1, WIDTH, 3)
    small = compact(rows.numpy())
    assert small.shape[0] <= WIDTH
    assert float(np.linalg.norm(small @ inputs.numpy())) == pytest.approx(float((rows @ inputs).norm()), rel=1e-12)


def test_a_kernel_keeps_weak_responses_that_a_gram_matrix_would_lose() -> None:
    """Inputs that only a detector with a response 2⁻¹⁷ of the other's can see: squares would differ by 2⁻³⁴."""
    A = torch.eye(2, WIDTH)
    weak = Increment(A, torch.tensor([[32.0, 2.0**-18], [0.0, 2.0**-18]]))
    unseen = torch.zeros(WIDTH, 1, dtype=torch.float64)
    unseen[1] = 1
    assert float(np.linalg.norm(compute_kernel([weak]) @ unseen.numpy())) == pytest.approx(
        2.0**-18 * math.sqrt(2), rel=1e-9
    )


def test_cosines_are_those_of_the_principal_angles() -> None:
    """Two planes that share a line and are at 60° otherwise."""
    e = torch.eye(4, dtype=torch.float64)
    tilted = 0.5 * e[1] + math.sqrt(0.75) * e[2]
    one, other = made(rows=torch.stack([e[0], e[1]])), made(rows=torch.stack([e[0] * 3, tilted + e[0]]))
    assert compute_angles(one, other) == pytest.approx([1.0, 0.5])
    assert compute_angles(one, one) == pytest.approx([1.0, 1.0])
    table = compute_cosines([one, other, made(rows=e[3:])])
    assert table[0].tolist() == pytest.approx([1.0, 1.0, 0.0])


def made(seed: int = 0, *, space: str = TEXT, rows: torch.Tensor | None = None) -> Footprint:
    """A footprint by its detectors alone."""
    found = factories.normal(seed, 2, WIDTH) if rows is None else rows
    targets = factories.normal(seed + 100, found.shape[1], 1)
    return Footprint(PatchId(f"{seed:064x}"), {space: found.numpy()}, {space: targets.numpy()})
