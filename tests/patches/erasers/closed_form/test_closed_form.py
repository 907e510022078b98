"""Exact invariants of the closed-form erasers, on 768-dimensional vectors that lie as CLIP's do.

Each is checked on the detectors before they are rounded to the grid: ΔW_l = W_l D A.
"""

import math

import pytest
import torch
from support.values import factories
from support.values.closed_form import eye, projector, relative, speed_map, uce_map
from support.values.factories import World

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import ProtectedBasis, build_guarded_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.least_squares import detector, protect_nothing, solve_soft_detector
from rasura.patches.erasers.closed_form.speed_invariants import compute_invariant_columns
from rasura.patches.erasers.closed_form.speed_projector import detect, protect
from rasura.patches.erasers.closed_form.speed_refinement import Refined

COUNTS = (1, 10, 100)
WIDTH = 768
WORLD = World(width=WIDTH, retained=100, outs=(64, 160))
C0 = WORLD.retained_columns
C2 = compute_invariant_columns(WORLD.reference.invariants, 3, 0)
NONE = C2[:, :0]
W = torch.cat([weight.double() for weight in WORLD.weights.values()])
REFINED = Refined(WORLD.reference.retained, 100, 100, 0)
EVERYTHING = RankRule("relative", 1e-9)
HARD = protect(REFINED, C2, 0.0, EVERYTHING)
PLAIN = protect(REFINED, NONE, 0.0, EVERYTHING)
P = projector(PLAIN)


def concept(count: int, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """C1 and C*, [d, count]."""
    columns = WORLD.columns("dog", seed, count)
    return columns.targets, columns.anchors


def size(change: torch.Tensor, X: torch.Tensor) -> float:
    """‖W·change·X‖ / ‖W X‖."""
    return float((W @ change @ X).norm() / (W @ X).norm())


def solved(
    C1: torch.Tensor, C: torch.Tensor, basis: ProtectedBasis = HARD, ridge: float = 1.0, soft: float = 0.0
) -> torch.Tensor:
    """D A [d, d]."""
    return (C - C1) @ detect(C1, basis, C2, ridge, soft)


@pytest.mark.parametrize("ridge", [1.0, 0.05])
@pytest.mark.parametrize("count", COUNTS)
def test_01_the_factored_form_is_the_published_one(count: int, ridge: float) -> None:
    C1, C = concept(count)
    assert relative(W @ solved(C1, C, ridge=ridge), W @ speed_map(C1, C, C2, P, ridge=ridge)) < 1e-9
    soft = solved(C1, C, PLAIN, ridge=ridge, soft=0.5)
    assert relative(W @ soft, W @ speed_map(C1, C, C2, P, ridge=ridge, lamb=0.5)) < 1e-9


@pytest.mark.parametrize("count", COUNTS)
def test_02_the_rank_is_the_number_of_columns(count: int) -> None:
    values = torch.linalg.svdvals(W @ solved(*concept(count)))
    assert float(values[count - 1]) > 1e-6 * float(values[0])
    assert float(values[count]) < 1e-12 * float(values[0])


@pytest.mark.parametrize("ridge", [1.0, 0.05])
@pytest.mark.parametrize("count", COUNTS)
def test_03_retained_vectors_are_untouched(count: int, ridge: float) -> None:
    assert size(solved(*concept(count), ridge=ridge), C0) < 1e-10


@pytest.mark.parametrize("count", COUNTS)
def test_04_hard_invariants_are_untouched(count: int) -> None:
    C1, C = concept(count)
    assert size(solved(C1, C), C2) < 1e-10
    assert size(solved(C1, C, PLAIN), C2) > 1e-3


@pytest.mark.parametrize("count", COUNTS)
def test_05_soft_invariants_are_touched_and_less_so_the_harder(count: int) -> None:
    C1, C = concept(count)
    touched = [size(solved(C1, C, PLAIN, soft=soft), C2) for soft in (0.5, 0.05, 0.005)]
    assert touched[0] > 10 * touched[2] * 0.9 > 0
    assert touched[0] > touched[1] > touched[2]
    assert relative(solved(C1, C, PLAIN, soft=1e-12), solved(C1, C)) < 1e-6


@pytest.mark.parametrize(("count", "ridge"), [(1, 1.0), (100, 5.0), (100, 100.0)])
def test_06_the_residual_is_that_of_the_ridge(count: int, ridge: float) -> None:
    """(W + Δ)C1 − WC* = −W D λ(λI + G)⁻¹; with means over n columns, λ = n times the code's."""
    C1, C = concept(count)
    found = W @ (C1 + solved(C1, C, ridge=ridge) @ C1 - C)
    G = C1.T @ projector(HARD) @ C1
    formula = -W @ (C - C1) @ torch.linalg.inv(ridge * eye(count) + G) * ridge
    assert relative(found, formula) < 1e-8
    share, values = float(found.norm() / (W @ (C - C1)).norm()), torch.linalg.eigvalsh(G)
    assert ridge / (ridge + float(values[-1])) * (1 - 1e-9) <= share <= ridge / (ridge + float(values[0])) * (1 + 1e-9)
    assert share > 5e-3


@pytest.mark.parametrize("count", COUNTS)
def test_07_means_with_a_ridge_are_sums_with_n_times_the_ridge(count: int) -> None:
    C1, C = concept(count)
    root = math.sqrt(count)
    mean = speed_map(C1 / root, C / root, C2, P, ridge=0.05)
    assert relative(W @ solved(C1, C, ridge=0.05 * count), W @ mean) < 1e-9


def test_08_uce_leaks_on_what_is_retained_and_more_with_every_concept() -> None:
    leaks = []
    for count in (1, 10, 50, 100):
        C1, C = concept(count)
        A = solve_soft_detector(C1, C0 @ C0.T, erase=1.0, preserve=1.0, ridge=0.5)
        assert relative((C - C1) @ A, uce_map(C1, C, C0, alpha=1.0, beta=1.0, ridge=0.5)) < 1e-9
        leaks.append(float((W @ (C - C1) @ A @ C0).square().sum()))
        assert float((W @ solved(C1, C) @ C0).square().sum()) < 1e-15 * leaks[-1]
    assert leaks == sorted(leaks)
    assert leaks[0] > 0
    assert leaks[-1] > 10 * leaks[0]


def test_09_for_many_concepts_speed_erases_less_than_uce() -> None:
    """The price of a ridge that grows with their number; as in the paper's tables."""
    C1, C = concept(100)
    A = solve_soft_detector(C1, C0 @ C0.T, erase=1.0, preserve=1.0, ridge=0.5)
    uce = (W @ (C1 + (C - C1) @ A @ C1 - C)).square().sum()
    speed = (W @ (C1 + solved(C1, C, ridge=0.05 * 100) @ C1 - C)).square().sum()
    assert float(speed) > 3 * float(uce)


@pytest.mark.parametrize("tau", [0.02, 0.1, 0.3, 1.0])
def test_10_what_is_left_of_retained_vectors_is_the_tail_of_the_spectrum(tau: float) -> None:
    """Mean ‖Pc‖² = Σ_{σ<τ} σ, for any τ."""
    many = factories.clip_like(5, 3000, WIDTH)
    found = protect(Refined(factories.moment(many), 3000, 3000, 0), NONE, 0.0, RankRule("absolute", tau))
    left = float(found.project(many).square().sum(0).mean())
    tail = float(found.spectrum[found.spectrum < tau].sum())
    assert left == pytest.approx(tail, rel=1e-9, abs=1e-9)
    assert found.rank == int((found.spectrum >= tau).sum())


def test_11_the_projector_is_one_and_leaves_what_is_not_retained() -> None:
    assert relative(P.T, P) < 1e-14
    assert relative(P @ P, P) < 1e-12
    assert float(torch.trace(P)) == pytest.approx(WIDTH - 100, abs=1e-9)
    assert float(torch.trace(projector(HARD))) == pytest.approx(WIDTH - 104, abs=1e-9)
    C1, _ = concept(10)
    PM = P @ torch.linalg.inv(C1 @ C1.T @ P + eye(WIDTH))
    assert relative(PM.T, PM) < 1e-10


def test_12_limits_are_the_methods_that_they_should_be() -> None:
    C1, _ = concept(10)
    assert float(solved(C1, C1).abs().max()) == 0.0
    whole = ProtectedBasis(eye(WIDTH), torch.ones(WIDTH, dtype=torch.float64), 0, EVERYTHING, torch.ones(WIDTH))
    assert float(detect(C1, whole, NONE, 1.0, 0.0).abs().max()) < 1e-12
    time = torch.linalg.inv(eye(10) + C1.T @ C1) @ C1.T
    assert relative(detector(C1, protect_nothing, 1.0), time) < 1e-9
    c, _ = concept(1)
    double = (P @ c).T / (c.T @ P @ c)
    assert relative(detect(c, PLAIN, NONE, 0.0, 0.0), double) < 1e-12
    assert relative(detect(c, PLAIN, NONE, 1e-9, 0.0), double) < 1e-9


@pytest.mark.parametrize(("keys", "free"), [(77, 668), (77, 40)])
def test_13_alphaedit_is_the_same_detector_with_another_response(keys: int, free: int) -> None:
    """R K1ᵀP (K1K1ᵀP + λI)⁻¹ = R A; its rank is the smaller of keys and free dimensions."""
    K1, R = factories.clip_like(9, keys, WIDTH), factories.normal(10, 160, keys)
    rule = EVERYTHING if free == WIDTH - 100 else RankRule("count", WIDTH - free)
    many = Refined(factories.moment(factories.clip_like(5, 1000, WIDTH)), 1000, 1000, 0)
    basis = PLAIN if free == WIDTH - 100 else protect(many, NONE, 0.0, rule)
    own = projector(basis)
    published = R @ K1.T @ own @ torch.linalg.inv(K1 @ K1.T @ own + 10 * eye(WIDTH))
    found = R @ detect(K1, basis, NONE, 10.0, 0.0)
    assert relative(found, published) < 1e-10
    assert int(torch.linalg.matrix_rank(found, rtol=1e-11)) == min(keys, free)


MANY = [concept(1, 100 + i) for i in range(10)]
ALL, ANCHORS = torch.cat([c for c, _ in MANY], dim=1), torch.cat([c for _, c in MANY], dim=1)


def test_14_concepts_can_be_separated() -> None:
    """Left out of a joint solution, solved for each other, or added with the cross-talk that was predicted."""
    A = detect(ALL, HARD, C2, 1.0, 0.0)
    for i, (c, _) in enumerate(MANY):
        rest = torch.cat([A[:i], A[i + 1 :]])
        change = torch.cat([(ANCHORS - ALL)[:, :i], (ANCHORS - ALL)[:, i + 1 :]], dim=1)
        assert size(change @ rest, c) < 5e-3  # its concept is back …
        assert size((ANCHORS - ALL) @ A, c) > 0.3  # … which was gone
    off = A @ ALL - eye(10)
    inner = ALL.T @ projector(HARD) @ ALL
    assert relative(off, -torch.linalg.inv(eye(10) + inner)) < 1e-9

    mutual = [
        detect(c, build_guarded_basis(HARD, [others(i).T], 1.0), NONE, 1.0, 0.0)[0] for i, (c, _) in enumerate(MANY)
    ]
    talk = torch.stack(mutual) @ ALL
    assert float((talk - torch.diag(torch.diagonal(talk))).abs().max()) < 1e-9

    alone = torch.stack([detect(c, HARD, NONE, 1.0, 0.0)[0] for c, _ in MANY])
    predicted = alone @ ALL
    assert float((predicted - torch.diag(torch.diagonal(predicted))).abs().max()) > 0.02
    for i, (c, to) in enumerate(MANY):
        moved = W @ (to - c) @ (alone[i : i + 1] @ ALL)
        assert relative(moved.norm(dim=0), (W @ (to - c)).norm() * predicted[i].abs()) < 1e-9


def others(own: int) -> torch.Tensor:
    return torch.cat([c for i, (c, _) in enumerate(MANY) if i != own], dim=1)


def test_15_sums_over_the_base_have_no_order_and_sequences_have() -> None:
    maps = [(c_star - c) @ detect(c, HARD, C2, 1.0, 0.0) for c, c_star in MANY]
    grid = [Increment.quantised(detect(c, HARD, C2, 1.0, 0.0), W @ (c_star - c)).dense() for c, c_star in MANY]
    assert torch.equal(sum(grid[1:], grid[0]), sum(grid[-2::-1], grid[-1]))
    forward = backward = eye(WIDTH)
    for one, other in zip(maps, reversed(maps), strict=True):
        forward, backward = forward @ (eye(WIDTH) + one), backward @ (eye(WIDTH) + other)
    assert relative(W @ (backward - eye(WIDTH)), W @ (forward - eye(WIDTH))) > 0.01


def test_18_a_rotation_of_the_outputs_keeps_every_norm_and_is_no_patch() -> None:
    """OCE (ICML 2026) turns outputs by an orthogonal R: norms stay, but nothing retained does, and turns do not add."""
    first, second = (turn(*concept(3, seed)) for seed in (7, 8))
    assert relative((first @ W).T @ (first @ W), W.T @ W) < 1e-12
    assert relative((first @ W @ C0).norm(dim=0), (W @ C0).norm(dim=0)) < 1e-13
    assert float((first @ W @ C0 - W @ C0).norm() / (W @ C0).norm()) > 1e-3
    assert relative(first @ second @ W, second @ first @ W) > 1e-3
    both = W + (first @ W - W) + (second @ W - W)
    assert relative(both.T @ both, W.T @ W) > 1e-3


def turn(C1: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    """The polar factor of −G(I − G*) + 0.05·W C0 C0ᵀWᵀ + I, G and G* the projectors on the outputs of C1 and C*."""
    G, G_star = (Q @ Q.T for Q in (torch.linalg.qr(W @ X)[0] for X in (C1, C)))
    kept = W @ C0 @ C0.T @ W.T / C0.shape[1]
    left, _, right = torch.linalg.svd(-8 * G @ (eye(W.shape[0]) - G_star) + 0.05 * kept + eye(W.shape[0]))
    polar: torch.Tensor = left @ right
    return polar
