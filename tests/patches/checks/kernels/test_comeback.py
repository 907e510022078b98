"""The largest share that comes back: never below any point of the set, attained, and right where hands can count."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values.factories import normal

from rasura.patches.checks.kernels.comeback import (
    Hull,
    Pencil,
    bound_ball,
    find_blind,
    find_hull,
    find_radius,
    find_span,
)

SEEDS = st.integers(0, 10_000)
COUNTS = st.integers(1, 6)


def drawn(seed: int, n: int, *, d: int = 9, o: int = 12) -> tuple[torch.Tensor, torch.Tensor, Pencil]:
    """W, W + Δ of rank 2 and columns like a concept's: they have much in common, and so have their anchors."""
    W, delta = normal(seed, o, d), normal(seed + 1, o, 2) @ normal(seed + 2, 2, d) * 0.3
    C = 3 * normal(seed + 3, d, 1) + normal(seed + 4, d, n)
    A = 3 * normal(seed + 5, d, 1) + normal(seed + 6, d, n) * 0.3
    asked = W @ (C - A)
    return W, W + delta, Pencil.of(C, A, [(asked, asked + delta @ C)])


def share(
    W: torch.Tensor, patched: torch.Tensor, pencil: Pencil, mixture: torch.Tensor, move: torch.Tensor | None = None
) -> float:
    """From the definition, without any of what is tested."""
    x, a = pencil.targets @ mixture, pencil.anchors @ mixture
    there = x if move is None else x + move
    return float((patched @ there - W @ a).norm() / (W @ (x - a)).norm())


def simplex(seed: int, n: int) -> torch.Tensor:
    weights = normal(seed, n).exp() * (normal(seed + 1, n) > -0.5)
    return weights / weights.sum() if float(weights.sum()) > 0 else torch.full((n,), 1 / n, dtype=torch.float64)


def found(pencil: Pencil) -> Hull:
    hull = find_hull(pencil)
    assert hull is not None
    return hull


@settings(max_examples=60)
@given(seed=SEEDS, n=COUNTS)
def test_no_combination_has_a_larger_share_and_one_has_it(seed: int, n: int) -> None:
    W, patched, pencil = drawn(seed, n)
    span = find_span(pencil, 1)
    assert span is not None
    assert span.directions == n
    assert span.silent == 0
    for step in range(30):
        assert share(W, patched, pencil, normal(seed + 50 + step, n)) <= span.share * (1 + 1e-9)
    assert share(W, patched, pencil, span.mixture) == pytest.approx(span.share, rel=1e-9)


@settings(max_examples=60)
@given(seed=SEEDS, n=COUNTS)
def test_the_part_that_responds_is_bounded_too_and_the_rest_is_counted(seed: int, n: int) -> None:
    W, patched, pencil = drawn(seed, n)
    whole, part = find_span(pencil, 1), find_span(pencil, 0.9)
    assert whole is not None
    assert part is not None
    assert part.directions + part.silent == n
    assert part.share <= whole.share * (1 + 1e-9)
    _, strength, right = torch.linalg.svd(pencil.asked)
    energy = strength.square()
    assert float(energy[: part.directions].sum()) >= 0.9 * float(energy.sum())
    for step in range(10):
        mixture = right[: part.directions].T @ normal(seed + 90 + step, part.directions)
        assert share(W, patched, pencil, mixture) <= part.share * (1 + 1e-9)


@settings(max_examples=60)
@given(seed=SEEDS, n=COUNTS)
def test_no_mixture_has_more_than_the_bound_of_the_hull(seed: int, n: int) -> None:
    W, patched, pencil = drawn(seed, n)
    hull = found(pencil)
    one = torch.eye(n, dtype=torch.float64)[hull.place]
    assert share(W, patched, pencil, one) == pytest.approx(hull.attained, rel=1e-9)
    for step in range(30):
        mixture = simplex(seed + 50 + 2 * step, n)
        if hull.bound is not None:
            assert share(W, patched, pencil, mixture) <= hull.bound * (1 + 1e-9)
    assert hull.bound is None or hull.bound >= hull.attained
    if n == 1:
        assert hull.bound == pytest.approx(hull.attained, rel=1e-9)


@settings(max_examples=60)
@given(seed=SEEDS, n=COUNTS, radius=st.floats(0, 3))
def test_nothing_in_a_ball_has_more_and_below_the_radius_nothing_is_whole(seed: int, n: int, radius: float) -> None:
    W, patched, pencil = drawn(seed, n)
    hull, gain = found(pencil), float(torch.linalg.matrix_norm(patched, 2))
    bound, safe = bound_ball(pencil, hull, gain, radius), find_radius(pencil, hull, gain)
    assert (bound is None) == (hull.bound is None)
    worst = torch.linalg.svd(patched).Vh[0]
    for step in range(20):
        mixture = simplex(seed + 50 + 2 * step, n)
        for move in (normal(seed + 70 + step, pencil.targets.shape[0]), worst, -worst):
            there = move / move.norm()
            if bound is not None:
                assert share(W, patched, pencil, mixture, radius * there) <= bound * (1 + 1e-9)
            assert safe == 0 or share(W, patched, pencil, mixture, 0.999 * safe * there) < 1


def test_a_ball_around_one_column_that_was_erased_exactly_is_bounded_by_what_is_reached() -> None:
    """With R = 0 the triangle inequality is an equality: δ along the first right singular vector reaches the bound."""
    W, d = normal(1, 12, 9), 9
    c, a = normal(2, d, 1), normal(3, d, 1)
    patched = W + (W @ (a - c)) @ c.T / float((c.T @ c).item())
    asked = W @ (c - a)
    pencil = Pencil.of(c, a, [(asked, asked + (patched - W) @ c)])
    hull, gain = found(pencil), float(torch.linalg.matrix_norm(patched, 2))
    move = 0.7 * torch.linalg.svd(patched).Vh[0]
    reached = share(W, patched, pencil, torch.ones(1, dtype=torch.float64), move)
    assert bound_ball(pencil, hull, gain, 0.7) == pytest.approx(reached, rel=1e-9)
    assert bound_ball(pencil, hull, gain, 1e308) is None  # larger than float64 can say
    whole = find_radius(pencil, hull, gain) * torch.linalg.svd(patched).Vh[0]
    assert share(W, patched, pencil, torch.ones(1, dtype=torch.float64), whole) == pytest.approx(1, rel=1e-9)


def test_by_hand() -> None:
    """W = 1; the patch takes the first axis to 0 and leaves 0.3 of the second: the pencil is diagonal."""
    C, A = torch.eye(3, dtype=torch.float64)[:, :2], torch.zeros(3, 2, dtype=torch.float64)
    left = torch.diag(torch.tensor([0.0, 0.3], dtype=torch.float64))
    pencil = Pencil.of(C, A, [(C.clone(), torch.cat([left, torch.zeros(1, 2, dtype=torch.float64)]))])
    span, hull = find_span(pencil, 1), found(pencil)
    assert span is not None
    assert span.share == pytest.approx(0.3)
    assert abs(float(span.mixture[0])) < 1e-12
    assert hull.attained == pytest.approx(0.3)
    assert hull.bound == pytest.approx(0.3, rel=1e-3)  # the first column has no share at all
    blind = find_blind(pencil, torch.tensor([[3.0, 0, 0], [1.5, 0, 0]], dtype=torch.float64), torch.eye(3).double())
    assert blind is not None
    assert blind.place == 1  # the detector is orthogonal to the second column: it is not seen as it is
    assert (blind.distance, blind.multiple, blind.carries) == pytest.approx((0, 0, 1))


def test_the_blind_spot_is_the_nearest_and_keeps_what_the_detectors_do_not_see() -> None:
    W, A = normal(1, 12, 9), normal(2, 2, 9)
    c, a = normal(3, 9, 1), normal(4, 9, 1)
    blind = find_blind(Pencil.of(c, a, [(W @ (c - a), W @ (c - a))]), A, W.T @ W)
    assert blind is not None
    nearest = c - torch.linalg.pinv(A) @ A @ (c - a)
    assert torch.allclose(A @ nearest, A @ a)
    assert blind.distance == pytest.approx(float((nearest - c).norm()))
    assert blind.multiple == pytest.approx(blind.distance / float((c - a).norm()))
    assert blind.carries == pytest.approx(float((W @ (nearest - a)).norm() / (W @ (c - a)).norm()))
    free = torch.linalg.svd(A).Vh[2:]
    for step in range(20):  # any other point that looks like the anchor is farther away
        other = nearest + free.T @ normal(50 + step, 7, 1)
        assert float((other - c).norm()) >= blind.distance


def test_where_responses_cancel_no_bound_is_given_and_nothing_is_divided_by_it() -> None:
    W = torch.eye(3, dtype=torch.float64)
    C = torch.tensor([[1.0, -1.0], [0, 0], [0, 0]], dtype=torch.float64)
    pencil = Pencil.of(C, torch.zeros(3, 2, dtype=torch.float64), [(W @ C, W @ C * 0.1 + 0.01)])
    hull = found(pencil)
    assert hull.bound is None
    assert hull.toward is None
    assert bound_ball(pencil, hull, 1.0, 0.1) is None
    assert find_radius(pencil, hull, 1.0) == 0
    span = find_span(pencil)
    assert span is not None
    assert (span.directions, span.silent) == (1, 0)
    assert math.isfinite(span.share)


def test_columns_that_are_what_they_become_respond_to_nothing() -> None:
    C = normal(1, 4, 2)
    pencil = Pencil.of(C, C, [(torch.zeros(4, 2, dtype=torch.float64), C)])
    assert find_span(pencil) is None
    assert find_hull(pencil) is None
    assert find_blind(pencil, normal(2, 1, 4), torch.eye(4, dtype=torch.float64)) is None


@given(seed=SEEDS)
@settings(max_examples=20)
def test_layers_below_each_other_are_reduced_without_changing_a_share(seed: int) -> None:
    C, A = normal(seed, 8, 3), normal(seed + 1, 8, 3)
    layers = [(normal(seed + i, 9, 3), normal(seed + 40 + i, 9, 3)) for i in range(2, 6)]
    pencil = Pencil.of(C, A, layers)
    whole = Pencil(C, A, torch.cat([g for g, _ in layers]), torch.cat([r for _, r in layers]))
    assert pencil.asked.shape[0] <= 6
    one, other = find_span(pencil, 1), find_span(whole, 1)
    assert one is not None
    assert other is not None
    assert one.share == pytest.approx(other.share, rel=1e-9)
    assert found(pencil).attained == pytest.approx(found(whole).attained, rel=1e-9)
