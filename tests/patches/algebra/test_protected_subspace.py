"""Protected spans: what is kept of a spectrum, and that the basis spans what it says."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.values import factories

from rasura.patches.algebra.protected_subspace import (
    LOOSE,
    Moment,
    ProtectedBasis,
    build_guarded_basis,
    build_protected_basis,
    count_for,
    find_leading,
    join_rows,
)
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.errors import ErasureRefusedError, InputError

WIDTH = 64
NULL = factories.clip_like(1, 5, WIDTH)
KEPT = factories.clip_like(2, 30, WIDTH)
EYE = torch.eye(WIDTH, dtype=torch.float64)


def basis(rule: str = "relative:1e-9", kept: torch.Tensor = KEPT) -> ProtectedBasis:
    return build_protected_basis(NULL.T, factories.moment(kept), RankRule.parse(rule))


def projector(found: ProtectedBasis) -> torch.Tensor:
    return EYE - found.rows.T @ found.rows


@pytest.mark.parametrize("rule", ["relative:1e-9", "relative:0.1", "absolute:0.5", "energy:0.9", "count:7"])
def test_the_projector_is_one(rule: str) -> None:
    """P = Pᵀ = P², tr P = d − rank, and `project` is P."""
    found = basis(rule)
    P = projector(found)
    assert torch.allclose(found.rows @ found.rows.T, torch.eye(found.rank, dtype=torch.float64), atol=1e-13)
    assert torch.allclose(P @ P, P, atol=1e-13)
    assert float(torch.trace(P)) == pytest.approx(WIDTH - found.rank, abs=1e-10)
    X = factories.normal(3, WIDTH, 4)
    assert torch.allclose(found.project(X), P @ X, atol=1e-12)


def test_few_prompts_are_held_exactly() -> None:
    found = basis()
    assert (found.rank, found.invariants, found.retained, found.guards) == (35, 5, 30, 0)
    for held in (NULL, KEPT):
        assert float(found.project(held).norm() / held.norm()) < 1e-13


@pytest.mark.parametrize("rule", ["absolute:0.05", "absolute:0.5", "relative:0.3", "energy:0.8", "count:3"])
def test_what_is_left_of_the_retained_prompts_is_the_spectrum_that_was_cut(rule: str) -> None:
    """The mean of ‖P c‖² = Σ of the eigenvalues that were not kept."""
    found = basis(rule)
    left = float(found.project(KEPT).square().sum(0).mean())
    assert 0 < found.retained < 30
    assert left == pytest.approx(float(found.spectrum[found.retained :].sum()), rel=1e-9)


@pytest.mark.parametrize("rule", ["relative:1e-9", "absolute:0.5"])
def test_energy_is_the_mean_square_of_each_component(rule: str) -> None:
    found = basis(rule)
    expected = (found.rows @ KEPT).square().mean(1)
    assert torch.allclose(found.energy, expected, rtol=1e-9, atol=1e-12)


def test_the_null_prompt_is_exact_whatever_the_rule() -> None:
    found = basis("count:1")
    assert found.rank == 6
    assert float(found.project(NULL).norm() / NULL.norm()) < 1e-13


def test_invariants_that_repeat_count_once() -> None:
    twice = torch.cat([NULL, NULL, NULL[:, :1] * 3], dim=1)
    assert build_protected_basis(twice.T, Moment(WIDTH), RankRule()).rank == 5


@pytest.mark.parametrize("rule", ["count:60", "energy:1", "relative:1e-300", "absolute:1e-300"])
def test_no_rule_keeps_directions_that_no_prompt_has(rule: str) -> None:
    """Beyond the prompts' span a spectrum is rounding noise; keeping it would take room for nothing."""
    assert basis(rule, KEPT[:, :4]).retained == 4
    assert basis(rule, NULL).retained == 0  # all of it is held by the invariants


def test_retaining_nothing_keeps_the_invariants() -> None:
    found = build_protected_basis(NULL.T, Moment(WIDTH), RankRule())
    assert (found.rank, found.retained) == (5, 0)
    # What a check weighs is then the null prompt itself: all of its energy is on these rows.
    assert float(found.energy.sum()) == pytest.approx(float(NULL.square().sum(0).mean()), rel=1e-12)


def test_protecting_everything_is_refused_with_the_numbers() -> None:
    with pytest.raises(ErasureRefusedError, match=r"takes all 64 dimensions \(5 for the null prompt, 59") as caught:
        basis("relative:1e-9", factories.clip_like(3, 200, WIDTH))
    assert caught.value.hint.endswith("--rank-rule relative:1e-08")


# --- Guards -----------------------------------------------------------------------------------------------------------


def test_guards_hold_other_patches_targets_outside_the_basis() -> None:
    plain, targets = basis("count:9"), factories.clip_like(5, 4, WIDTH)
    found = build_guarded_basis(plain, [targets[:, :2].T, targets[:, 2:].T], 1.0)
    assert (found.guards, found.retained, found.invariants, found.rank) == (4, 9, 5, 18)
    assert float(found.project(targets).norm() / targets.norm()) < 1e-13
    assert torch.equal(found.rows[: plain.rank], plain.rows)
    assert torch.equal(found.energy, torch.cat([plain.energy, torch.zeros(4, dtype=torch.float64)]))
    assert torch.allclose(found.rows @ found.rows.T, torch.eye(18, dtype=torch.float64), atol=1e-13)


def test_no_guards_and_guards_that_are_held_already_change_nothing() -> None:
    plain = basis()
    for targets in ([], [KEPT[:, :3].T], [NULL.T]):
        found = build_guarded_basis(plain, targets, 0.9999)
        assert torch.equal(found.rows, plain.rows)
        assert found.guards == 0


def test_the_same_guard_twice_counts_once() -> None:
    targets = factories.clip_like(5, 3, WIDTH).T
    assert build_guarded_basis(basis(), [targets, targets], 1.0).guards == 3


def test_guards_that_take_the_rest_are_refused() -> None:
    """The refusal says what there is, what each needs, and what would help, in dimensions."""
    plain = replace(basis(), rule=RankRule("count", 30))
    large, small = factories.clip_like(5, 26, WIDTH).T, factories.clip_like(6, 8, WIDTH).T
    large[13:] *= 1e-3
    with pytest.raises(ErasureRefusedError, match=r"of the 29 left, .* need 29 \(26, 8\), expected at most 28") as no:
        build_guarded_basis(plain, [large, small], 1.0)
    assert "(count:15 leaves 44)" in no.value.message
    assert (no.value.details["left"], no.value.details["needed"], no.value.details["guards"]) == (29, 29, [26, 8])
    assert build_guarded_basis(plain, [large], 1.0).guards == 26
    loose = no.value.details["loose"]
    assert isinstance(loose, int)
    assert build_guarded_basis(plain, [large, small], LOOSE).guards == loose < 22
    assert f"guard=0.99 needs {loose}" in no.value.message


# --- Rules ------------------------------------------------------------------------------------------------------------

SPECTRUM = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
KEEPS = {
    "absolute:2": 3,
    "absolute:2.0001": 2,
    "absolute:100": 0,
    "relative:1": 1,
    "relative:0.5": 2,
    "relative:0.1": 5,
    "energy:0.5": 1,
    "energy:0.51": 2,
    "energy:0.75": 2,
    "energy:1": 5,
    "count:1": 1,
    "count:4": 4,
    "count:100": 6,
}


@pytest.mark.parametrize("rule", KEEPS)
def test_rules_keep(rule: str) -> None:
    assert RankRule.parse(rule).keep(SPECTRUM) == KEEPS[rule]
    assert RankRule.parse(rule).keep(torch.zeros(4, dtype=torch.float64)) == 0
    assert RankRule.parse(rule).keep(torch.zeros(0, dtype=torch.float64)) == 0


rules = st.one_of(
    st.builds(RankRule, st.just("absolute"), st.floats(1e-9, 1e9)),
    st.builds(RankRule, st.sampled_from(["relative", "energy"]), st.floats(1e-9, 1.0)),
    st.builds(RankRule, st.just("count"), st.integers(1, 1 << 20).map(float)),
)


@given(rules)
def test_rules_read_back_to_six_digits(rule: RankRule) -> None:
    again = RankRule.parse(str(rule))
    assert again.kind == rule.kind
    assert again.value == (rule.value if rule.kind == "count" else pytest.approx(rule.value, rel=1e-5))
    assert RankRule.parse(str(again)) == again


@given(rules)
def test_a_coarser_rule_is_a_rule_that_keeps_no_more(rule: RankRule) -> None:
    coarser = RankRule.parse(str(rule.coarser))
    assert coarser.keep(SPECTRUM) <= max(rule.keep(SPECTRUM), 1)


SENSELESS = (
    "|relative|relative:|relative:x|relative:0|relative:-1|relative:1.01|relative:nan|energy:2|energy:0|count:0|count:1.5"
    "|count:inf|count:99999999|absolute:inf|absolute:-1|absolute:nan|rank:3|:1"
)


@pytest.mark.parametrize("text", SENSELESS.split("|"))
def test_rules_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not understood") as caught:
        RankRule.parse(text)
    assert RankRule.parse(caught.value.hint.removeprefix("--rank-rule ")).kind == "relative"


# --- Parts ------------------------------------------------------------------------------------------------------------


def test_a_moment_is_the_mean_of_outer_products_however_it_was_filled() -> None:
    X = factories.normal(7, 12, 5)
    one, many = Moment(5), Moment(5)
    one.add(X)
    many.add(X[:7].reshape(7, 1, 5))
    many.add(X[7:])
    assert torch.allclose(one.mean, X.T @ X / 12, atol=1e-14)
    assert torch.allclose(one.mean, many.mean, atol=1e-14)
    assert float(Moment(5).mean.abs().max()) == 0


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_leading_rows_carry_their_share(share: float) -> None:
    X = factories.normal(8, 10, 6) @ torch.diag(torch.tensor([3.0, 2, 1, 0.5, 0.1, 0.01], dtype=torch.float64))
    rows = find_leading(X, share)
    carried = float((rows @ X).square().sum() / X.square().sum())
    assert carried >= share - 1e-12
    if rows.shape[0] > 1:
        assert float((rows[:-1] @ X).square().sum() / X.square().sum()) < share


def test_counts_for_a_share() -> None:
    values = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    assert [count_for(values, share) for share in (1e-9, 4 / 6, 4.01 / 6, 5 / 6, 1.0)] == [1, 1, 2, 2, 3]
    assert count_for(torch.zeros(3, dtype=torch.float64), 0.9) == 1


def test_joined_rows_span_all_of_them() -> None:
    rows = join_rows([KEPT[:, :3].T, KEPT[:, 2:5].T])
    assert rows.shape[0] == 5
    assert float((KEPT[:, :5] - rows.T @ (rows @ KEPT[:, :5])).norm()) < 1e-12 * math.sqrt(WIDTH) * float(KEPT.norm())
