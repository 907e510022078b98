"""The rewrite of a feed-forward layer against AlphaEdit's own formula, on random keys of real widths."""

import time

import pytest
import torch
from support.full import FULL
from support.values import factories

from rasura.patches.algebra.protected_subspace import Moment, ProtectedBasis, build_guarded_basis, build_protected_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.interface import Reference
from rasura.patches.erasers.text_encoder.alphaedit import cut, paper_rule, rewrite, ridge_of

D, FF = 96, 384


def keys(seed: int, count: int, width: int = FF) -> torch.Tensor:
    """Columns [width, count] like what passed an activation: mostly small, some large, one common part."""
    found: torch.Tensor = torch.nn.functional.gelu(factories.normal(seed, width, count)) + 0.3
    return found


def basis(retained: int = 60, rule: str = "relative:1e-9", width: int = FF) -> ProtectedBasis:
    moment = Moment(width)
    moment.add(keys(11, retained, width).T)
    return build_protected_basis(keys(12, 5, width).T, moment, RankRule.parse(rule))


def projector(held: ProtectedBasis) -> torch.Tensor:
    return torch.eye(held.width, dtype=torch.float64) - held.rows.T @ held.rows


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("count", [1, 20, 77])
@pytest.mark.parametrize("lam", [0.5, 200.0])
def test_the_factored_form_is_alphaedits(count: int, lam: float) -> None:
    """ΔW = R K1ᵀP (K1 K1ᵀ P + λI)⁻¹, and R·A with A = (λI + K1ᵀ P K1)⁻¹ K1ᵀ P."""
    held, K1, R = basis(), keys(1, count), factories.normal(2, D, count)
    P = projector(held)
    published = R @ K1.T @ P @ torch.linalg.inv(K1 @ K1.T @ P + lam * torch.eye(FF, dtype=torch.float64))
    A = torch.linalg.solve(lam * torch.eye(count, dtype=torch.float64) + K1.T @ P @ K1, K1.T @ P)
    found = rewrite(R, K1, held, lam)
    assert relative(found, R @ A) < 1e-12
    assert relative(found, published) < 1e-9  # the d × d inverse itself has lost the other digits


def test_with_keys_of_earlier_edits() -> None:
    """ΔW = R K1ᵀP (K_p K_pᵀP + K1 K1ᵀP + λI)⁻¹."""
    held, K1, R, earlier = basis(), keys(1, 30), factories.normal(2, D, 30), keys(3, 40)
    P, lam = projector(held), 2.0
    inner = (earlier @ earlier.T + K1 @ K1.T) @ P + lam * torch.eye(FF, dtype=torch.float64)
    found = rewrite(R, K1, held, lam, earlier)
    assert relative(found, R @ K1.T @ P @ torch.linalg.inv(inner)) < 1e-10
    assert (found @ earlier).norm() < 0.5 * (rewrite(R, K1, held, lam) @ earlier).norm()


@pytest.mark.parametrize("count", [20, 77, 300])
def test_the_rank_is_that_of_the_keys_or_of_what_is_free(count: int) -> None:
    held = basis(rule="count:200")
    free = held.width - held.rank
    wide = rewrite(factories.normal(2, FF, count), keys(1, count), held, 0.1)
    assert int(torch.linalg.matrix_rank(wide, rtol=1e-11)) == min(count, free)


def test_what_is_held_is_not_touched() -> None:
    held, K1 = basis(), keys(1, 40)
    other = keys(5, 7)
    guarded = build_guarded_basis(held, [other.T], 1.0)
    delta = rewrite(factories.normal(2, D, 40), K1, guarded, 1.0)
    A, B = cut(delta, K1, guarded, 1.0, 1000)
    for increment in (delta, B @ A):
        assert float((increment @ keys(12, 5)).norm() / (increment @ K1).norm()) < 1e-12
        assert float((increment @ keys(11, 60)).norm() / (increment @ K1).norm()) < 1e-6
        assert float((increment @ other).norm() / (increment @ K1).norm()) < 1e-10


def test_without_softness_the_values_are_met() -> None:
    held, K1, R = basis(), keys(1, 40), factories.normal(2, D, 40)
    assert relative(rewrite(R, K1, held, 0.0) @ K1, R) < 1e-9
    soft = ridge_of(K1, held, 0.1)
    assert soft == pytest.approx(0.1 * float((projector(held) @ K1).square().sum(0).mean()))
    assert 0.01 < relative(rewrite(R, K1, held, soft) @ K1, R) < 0.9


def test_many_keys_take_another_way_to_the_same_increment() -> None:
    """Repeating every key with the same wish is one key with λ / times."""
    held, K1, R = basis(), keys(1, 40), factories.normal(2, D, 40)
    often = rewrite(R.repeat(1, 12), K1.repeat(1, 12), held, 12 * 0.7)
    assert relative(often, rewrite(R, K1, held, 0.7)) < 1e-9


def test_a_cut_keeps_the_share_of_the_effect() -> None:
    held, K1 = basis(), keys(1, 60)
    R = factories.normal(2, D, 4) @ factories.normal(3, 4, 60) + 0.01 * factories.normal(4, D, 60)
    delta = rewrite(R, K1, held, 0.1)
    A, B = cut(delta, K1, held, 0.99, 128)
    assert A.shape == (4, FF)
    assert float((B @ A @ K1).square().sum() / (delta @ K1).square().sum()) >= 0.99
    assert cut(delta, K1, held, 1.0, 3)[0].shape == (3, FF)
    nothing = cut(torch.zeros(D, FF, dtype=torch.float64), K1, held, 0.99, 128)
    assert float((nothing[1] @ nothing[0]).abs().max()) == 0


def test_the_papers_rule_leaves_a_thirtieth_at_least() -> None:
    """Their code: the 100 smallest of 3072 directions, or all with less than 1/90000 of the mean eigenvalue."""
    full, few = Moment(FF), Moment(FF)
    full.add(keys(1, 4000).T)
    few.add(keys(1, 100).T)
    null = keys(12, 5).T
    assert paper_rule(Reference(null, full, few)) == RankRule("count", FF - 5 - 12)  # 384 · 100 / 3072 = 12.5
    assert paper_rule(Reference(null, few, few)) == RankRule("count", 100)
    held = build_protected_basis(null, full, paper_rule(Reference(null, full, few)))
    assert held.width - held.rank == 12


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="half a minute: FULL=1")
def test_the_width_of_clip_vit_l_takes_seconds() -> None:
    start = time.process_time()
    held = basis(1000, "relative:1e-3", 3072)
    K1 = keys(1, 616, 3072)
    delta = rewrite(factories.normal(2, 768, 616), K1, held, ridge_of(K1, held, 1e-2))
    A, B = cut(delta, K1, held, 0.99, 128)
    assert (A.shape[1], B.shape[0]) == (3072, 768)
    assert time.process_time() - start < 60
