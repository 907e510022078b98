"""SPEED's filter and augmentation against their definitions; and that a million retained vectors pass through."""

import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.values import factories
from support.values.closed_form import eye, relative
from support.values.factories import World

from rasura.patches.erasers.closed_form.least_squares import detector, protect_nothing
from rasura.patches.erasers.closed_form.speed_invariants import compute_centroids, compute_invariant_columns
from rasura.patches.erasers.closed_form.speed_prior_shift import Choices, find_least_direction, shifts
from rasura.patches.erasers.closed_form.speed_refinement import (
    CHUNK,
    Refined,
    ReplayableBatches,
    make_noise_source,
    refine,
)
from rasura.patches.types import ParamName

WORLD = World(width=96, outs=(40, 120))
CONCEPT = WORLD.columns("dog", 7, 3)
C1, D = CONCEPT.targets, CONCEPT.anchors - CONCEPT.targets
GROUPS = [{name: weight.double()} for name, weight in WORLD.weights.items()]
RETAINED = factories.clip_like(11, 300, 96)
PLAIN = Choices(ipf=True, alpha=1.0, squared=False, aug=0, chunked=False, reduced=True, seed=3)


def batches(size: int = 77) -> Iterator[torch.Tensor]:
    return iter(torch.split(RETAINED.T, size))


def found(choices: Choices, groups: list[dict[ParamName, torch.Tensor]] | None = None) -> tuple[Refined, ...]:
    return refine(batches, shifts(groups or GROUPS, C1, D, 1.0, choices), choices)


def shift_of(W: torch.Tensor, kappa: float = 1.0) -> torch.Tensor:
    """‖W (Q* − T)(I + T)⁻¹ c‖ of every retained vector."""
    T = kappa * C1 @ C1.T
    moved = W @ (kappa * D @ C1.T) @ torch.linalg.inv(eye(96) + T) @ RETAINED
    sizes: torch.Tensor = moved.norm(dim=0)
    return sizes


@pytest.mark.parametrize("kappa", [1.0, 1 / 3])
@pytest.mark.parametrize("squared", [False, True])
def test_the_prior_shift_is_the_unguarded_erasure_of_the_paper(kappa: float, squared: bool) -> None:
    for group, shift in zip(GROUPS, shifts(GROUPS, C1, D, kappa, replace(PLAIN, squared=squared)), strict=True):
        expected = shift_of(next(iter(group.values())), kappa) ** (2 if squared else 1)
        assert relative(shift.of(RETAINED.T), expected) < 1e-9


def test_with_more_columns_than_dimensions_the_shift_is_the_same() -> None:
    concept = WORLD.columns("dog", 7, 150)
    change = concept.anchors - concept.targets
    read = detector(concept.targets, protect_nothing, 1.0)
    for group, shift in zip(GROUPS, shifts(GROUPS, concept.targets, change, 1.0, PLAIN), strict=True):
        assert shift.size.shape[1] == 96
        W = next(iter(group.values()))
        assert relative(shift.of(RETAINED.T), (W @ change @ (read @ RETAINED)).norm(dim=0)) < 1e-9


def test_layers_taken_as_one_add_their_squared_shifts() -> None:
    whole = {name: weight for group in GROUPS for name, weight in group.items()}
    (one,) = shifts([whole], C1, D, 1.0, PLAIN)
    parts = torch.stack([shift_of(next(iter(group.values()))) for group in GROUPS])
    assert relative(one.of(RETAINED.T), parts.norm(dim=0)) < 1e-9


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.1])
def test_17_the_filter_keeps_what_lies_strictly_above_the_mean(squared: bool, alpha: float) -> None:
    for group, own in zip(GROUPS, found(replace(PLAIN, squared=squared, alpha=alpha)), strict=True):
        sizes = shift_of(next(iter(group.values()))) ** (2 if squared else 1)
        kept = RETAINED[:, sizes > alpha * sizes.mean()]
        assert (own.seen, own.kept, own.added) == (300, kept.shape[1], 0)
        assert relative(own.moment.mean * own.kept, kept @ kept.T) < 1e-12


def test_17_squares_keep_fewer() -> None:
    assert found(replace(PLAIN, squared=True))[0].kept < found(PLAIN)[0].kept


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_17_the_filter_does_not_care_how_large_the_weights_are(factor: float) -> None:
    scaled = [{name: factor * weight for name, weight in group.items()} for group in GROUPS]
    for one, other in zip(found(PLAIN), found(PLAIN, scaled), strict=True):
        assert one.kept == other.kept
        assert torch.equal(one.moment.mean, other.moment.mean)


def test_vectors_that_are_all_alike_are_none_of_them_above_their_mean() -> None:
    same = RETAINED[:, :1].expand(-1, 7).T
    (first, _) = refine(lambda: iter([same[:3], same[3:]]), shifts(GROUPS, C1, D, 1.0, PLAIN), PLAIN)
    assert (first.seen, first.kept) == (7, 0)


def test_16_the_least_direction_is_that_of_the_smallest_singular_value() -> None:
    for group in GROUPS:
        W = next(iter(group.values()))
        values = torch.linalg.svdvals(W)
        reduced, full = (find_least_direction(group, reduced=way) for way in (True, False))
        for direction in (reduced, full):
            assert float(direction.norm()) == pytest.approx(1.0, abs=1e-12)
            assert float(direction[direction.abs().argmax()]) > 0
        assert float((W @ reduced).norm()) == pytest.approx(float(values[-1]), rel=1e-9)
        # A layer with fewer outputs than inputs has directions that it does not see at all.
        assert float((W @ full).norm()) < (1e-12 if W.shape[0] < 96 else float(values[-1]) * (1 + 1e-9))
    whole = {name: weight for group in GROUPS for name, weight in group.items()}
    both = torch.cat(list(whole.values()))
    for way in (True, False):
        least = find_least_direction(whole, reduced=way)
        assert float((both @ least).norm()) == pytest.approx(float(torch.linalg.svdvals(both)[-1]), rel=1e-6)


def test_16_noise_lies_along_the_least_direction_and_is_normal() -> None:
    """Rank of retained and augmented vectors: one more than of the retained; ‖W(c' − c)‖ = |t| σ_min."""
    few = RETAINED[:, :50].T
    everything = replace(PLAIN, ipf=False, aug=10, alpha=0.0)
    own = shifts(GROUPS, C1, D, 1.0, everything)
    for shift, refined in zip(own, refine(lambda: iter([few]), own, everything), strict=True):
        assert (refined.kept, refined.added) == (50, 500)
        inside = torch.linalg.matrix_rank(refined.moment.mean, rtol=1e-12)
        assert int(inside) == 51
        directions = torch.cat([few, shift.least[None]])
        _, _, rows = torch.linalg.svd(directions, full_matrices=False)
        outside = eye(96) - rows.T @ rows
        assert float((outside @ refined.moment.mean @ outside).norm()) < 1e-10
    noise = torch.randn(100_000, generator=make_noise_source(3, 0), dtype=torch.float64)
    assert abs(float(noise.mean())) < 0.015
    assert float(noise.std()) == pytest.approx(1.0, abs=0.01)
    assert not torch.equal(noise[:9], torch.randn(9, generator=make_noise_source(3, 1), dtype=torch.float64))


@pytest.mark.parametrize("squared", [False, True])
def test_16_the_shift_of_a_noisy_copy_is_that_of_the_copy(squared: bool) -> None:
    noise = factories.normal(5, 300, 4)
    for shift in shifts(GROUPS, C1, D, 1.0, replace(PLAIN, squared=squared)):
        copies = RETAINED.T[:, None] + noise[:, :, None] * shift.least
        assert relative(shift.noisy(RETAINED.T, noise), shift.of(copies)) < 1e-9


@pytest.mark.parametrize("chunked", [False, True])
def test_copies_are_kept_above_the_mean_of_all_or_of_their_piece(chunked: bool) -> None:
    choices = replace(PLAIN, ipf=False, aug=10, chunked=chunked)
    for i, (shift, refined) in enumerate(zip(shifts(GROUPS, C1, D, 1.0, choices), found(choices), strict=True)):
        source, pieces = make_noise_source(3, i), torch.split(RETAINED.T, CHUNK)
        copies = [
            (
                piece[:, None]
                + torch.randn(len(piece), 10, generator=source, dtype=torch.float64)[:, :, None] * shift.least
            )
            for piece in pieces
        ]
        sizes = [shift.of(piece) for piece in copies]
        means = [size.mean() if chunked else torch.cat(sizes).mean() for size in sizes]
        kept = torch.cat([c[s > m] for c, s, m in zip(copies, sizes, means, strict=True)])
        assert refined.added == kept.shape[0]
        expected = (RETAINED @ RETAINED.T + kept.T @ kept) / (300 + kept.shape[0])
        assert relative(refined.moment.mean, expected) < 1e-12


@pytest.mark.parametrize("size", [1, 50, 300])
def test_how_vectors_are_batched_changes_nothing(size: int) -> None:
    choices = replace(PLAIN, aug=3)
    own = shifts(GROUPS, C1, D, 1.0, choices)
    for one, other in zip(found(choices), refine(lambda: batches(size), own, choices), strict=True):
        assert (one.kept, one.added) == (other.kept, other.added)
        assert relative(one.moment.mean, other.moment.mean) < 1e-12


def test_a_million_retained_vectors_pass_through_in_bounded_memory() -> None:
    width, alive, most = 16, 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def source() -> Iterator[torch.Tensor]:
        nonlocal alive, most
        for i in range(250):
            batch = factories.clip_like(i, 4000, width).T.contiguous()
            alive += 1
            most = max(most, alive)
            weakref.finalize(batch, gone)
            yield batch

    W = factories.projections(1, width, 24)
    concept = factories.clip_like(1, 1, width)
    choices = replace(PLAIN, aug=1)
    (refined,) = refine(
        ReplayableBatches(source, limit=1 << 21), shifts([W], concept, -0.5 * concept, 1.0, choices), choices
    )
    assert refined.seen == 1_000_000
    assert 100_000 < refined.kept < 900_000
    assert 0 < refined.added < refined.kept
    assert most < 8
    assert alive <= 1


def test_few_vectors_are_encoded_once() -> None:
    calls = 0

    def source() -> Iterator[torch.Tensor]:
        nonlocal calls
        calls += 1
        return batches()

    replay = ReplayableBatches(source)
    assert [len(batch) for batch in replay()] == [len(batch) for batch in replay()] == [77, 77, 77, 69]
    assert calls == 1
    small = ReplayableBatches(source, limit=1000)
    assert torch.equal(torch.cat(list(small())), torch.cat(list(small())))
    assert calls == 3


# --- Centres of the null prompt ---------------------------------------------------------------------------------------


def test_centres_are_means_of_the_points_nearest_to_them() -> None:
    points = torch.cat([factories.normal(i, 25, 8) + 20 * factories.normal(50 + i, 1, 8) for i in range(3)])
    centres = compute_centroids(points, 3, 0)
    nearest = torch.cdist(points, centres).argmin(1)
    for i in range(3):
        assert relative(centres[i], points[nearest == i].mean(0)) < 1e-12
    assert torch.equal(centres, compute_centroids(points, 3, 0))
    spread = {tuple(sorted((nearest == i).sum().item() for i in range(3)))}
    assert spread == {(25, 25, 25)}


def test_more_centres_than_points_are_the_points() -> None:
    points = torch.cat([factories.normal(1, 2, 8)] * 3)
    centres = compute_centroids(points, 5, 0)
    assert centres.shape == (2, 8)
    assert compute_centroids(points, 0, 0).shape == (0, 8)
    columns = compute_invariant_columns(torch.cat([torch.ones(1, 8, dtype=torch.float64), points]), 5, 0)
    assert columns.shape == (8, 3)
    assert torch.equal(columns[:, 0], torch.ones(8, dtype=torch.float64))
