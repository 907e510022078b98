"""The null-space eraser against its own mathematics, on 768-dimensional vectors that lie as CLIP's do."""

from dataclasses import replace

import pytest
import torch
from support.values import factories
from support.values.factories import World

from rasura.patches.algebra.protected_subspace import Moment, ProtectedBasis, build_protected_basis, find_leading
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.null_space import (
    NullSpace,
    Projector,
    _factors,
    compute_gram_of,
    compute_roots,
    erase,
    make_projector,
    make_projectors,
)
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure
from rasura.patches.errors import BoundExceededError, ErasureRefusedError, InputError

COUNTS = (1, 10, 100)
EXACT = NullSpace(ridge=1e-3, energy=1.0, rank_limit=1000)
WORLD = World(width=768, retained=100, outs=(64, 80, 96, 112))
BASIS = WORLD.basis()
ROOTS = compute_roots(compute_gram_of(WORLD.weights))
NOTHING = torch.zeros(0, 768, dtype=torch.float64)


def columns(count: int, seed: int = 7) -> Columns:
    return WORLD.columns("dog", seed, count)


def map_of(concept: Columns, basis: ProtectedBasis, options: NullSpace, guard: torch.Tensor = NOTHING) -> torch.Tensor:
    """M = Q·A [d, d] before it is rounded to the grid: ΔW_l = W_l M."""
    project = Projector(basis, guard)
    A, Q = _factors(concept, project(concept.targets), ROOTS, options)
    return Q @ project(A.T).T


def projector(basis: ProtectedBasis) -> torch.Tensor:
    return torch.eye(basis.width, dtype=torch.float64) - basis.rows.T @ basis.rows


def ridge(concept: Columns, P: torch.Tensor, options: NullSpace = EXACT) -> float:
    """λ itself: a share of the mean squared free norm."""
    return options.ridge * float(torch.diagonal(concept.targets.T @ P @ concept.targets).mean())


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def outputs(map_: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """W_l M X of all projections, one under the other."""
    return torch.cat([W.double() @ map_ @ X for W in WORLD.weights.values()])


def effect(erasure: Erasure, X: torch.Tensor) -> torch.Tensor:
    """ΔW_l X of all projections, as quantised."""
    return torch.cat([increment.dense() @ X for increment in erasure.increments.values()])


EYE = torch.eye(768, dtype=torch.float64)


@pytest.mark.parametrize("count", COUNTS)
def test_the_factored_form_is_the_published_d_by_d_formula(count: int) -> None:
    """SPEED, eq. 3: ΔW = W D C1ᵀ P (C1 C1ᵀ P + λI)⁻¹, here on what reaches the projections' outputs."""
    concept, P = columns(count), projector(BASIS)
    C1, D = concept.targets, concept.anchors - concept.targets
    published = D @ C1.T @ P @ torch.linalg.inv(C1 @ C1.T @ P + ridge(concept, P) * EYE)
    found = map_of(concept, BASIS, EXACT)
    for W in WORLD.weights.values():
        assert relative(W.double() @ found, W.double() @ published) < 1e-9


@pytest.mark.parametrize("count", COUNTS)
def test_mean_moments_with_a_ridge_are_sums_with_n_times_the_ridge(count: int) -> None:
    """What SPEED's code computes: means over the concepts, so that its ridge grows with their number."""
    concept, P = columns(count), projector(BASIS)
    C1, D = concept.targets, concept.anchors - concept.targets
    mean = ridge(concept, P) / count
    coded = (D @ C1.T / count) @ P @ torch.linalg.inv((C1 @ C1.T / count) @ P + mean * EYE)
    assert relative(outputs(map_of(concept, BASIS, EXACT), EYE), outputs(coded, EYE)) < 1e-9


@pytest.mark.parametrize("count", COUNTS)
def test_the_rank_of_an_increment_is_the_number_of_columns(count: int) -> None:
    basis = WORLD.basis()
    (erasure,) = erase(factories.projections(3, 768, 128, 160), [columns(count)], basis, EXACT)
    for increment in erasure.increments.values():
        assert increment.rank == count
        assert int(torch.linalg.matrix_rank(increment.dense())) == count


@pytest.mark.parametrize("count", COUNTS)
def test_nothing_protected_is_touched(count: int) -> None:
    """To rounding before quantisation; to the grid after it, where the leak grows with the root of the rank."""
    exact, quantised = map_of(columns(count), BASIS, EXACT), erase(WORLD.weights, [columns(count)], BASIS, EXACT)[0]
    null = WORLD.reference.invariants.T
    for protected in (WORLD.retained_columns, null, null[:, :1]):  # retained, null prompt, start of text
        present = outputs(EYE, protected).norm()
        assert float(outputs(exact, protected).norm() / present) < 1e-10
        assert float(effect(quantised, protected).norm() / present) < (1e-6 if count < 100 else 2e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_the_residual_is_that_of_the_ridge(count: int) -> None:
    """(W + Δ) C1 − W C* = −W D λ (λI + C1ᵀ P C1)⁻¹."""
    concept, P = columns(count), projector(BASIS)
    C1, D = concept.targets, concept.anchors - concept.targets
    lam, G = ridge(concept, P), C1.T @ P @ C1
    expected = -outputs(EYE, D) @ torch.linalg.inv(lam * torch.eye(count, dtype=torch.float64) + G) * lam
    found = outputs(EYE + map_of(concept, BASIS, EXACT), C1) - outputs(EYE, concept.anchors)
    assert float((found - expected).norm() / outputs(EYE, D).norm()) < 1e-9
    assert 1e-4 < float(found.norm() / outputs(EYE, D).norm()) < 2e-2


@pytest.mark.parametrize("count", COUNTS)
def test_without_a_ridge_the_erasure_is_exact(count: int) -> None:
    concept = columns(count)
    found = outputs(EYE + map_of(concept, BASIS, replace(EXACT, ridge=0.0)), concept.targets)
    assert relative(found, outputs(EYE, concept.anchors)) < 1e-9


@pytest.mark.parametrize("count", [1, 10])
def test_protecting_nothing_is_plain_ridge_regression(count: int) -> None:
    """TIME: D (λI + C1ᵀC1)⁻¹ C1ᵀ."""
    nothing = build_protected_basis(NOTHING, Moment(768), RankRule())
    assert nothing.rank == 0
    concept = columns(count)
    C1, D = concept.targets, concept.anchors - concept.targets
    lam = ridge(concept, EYE)
    expected = D @ torch.linalg.inv(lam * torch.eye(count, dtype=torch.float64) + C1.T @ C1) @ C1.T
    assert relative(outputs(map_of(concept, nothing, EXACT), EYE), outputs(expected, EYE)) < 1e-9


def test_one_column_without_ridge_is_double_projections() -> None:
    """The detector is (Pc)ᵀ / (cᵀPc)."""
    concept, P = columns(1), projector(BASIS)
    c, D = concept.targets, concept.anchors - concept.targets
    expected = D @ (P @ c).T / (c.T @ P @ c)
    assert relative(outputs(map_of(concept, BASIS, replace(EXACT, ridge=0.0)), EYE), outputs(expected, EYE)) < 1e-9


def test_an_anchor_that_is_the_target_changes_nothing() -> None:
    concept = columns(3)
    (erasure,) = erase(WORLD.weights, [replace(concept, anchors=concept.targets)], BASIS, EXACT)
    assert all(float(increment.dense().abs().max()) == 0 for increment in erasure.increments.values())


# --- Several concepts -----------------------------------------------------------------------------------------------

MANY = tuple(WORLD.columns(f"concept {i}", 100 + i) for i in range(10))
ALL = torch.cat([concept.targets for concept in MANY], dim=1)


@pytest.fixture(scope="module")
def joint() -> tuple[Erasure, ...]:
    return erase(WORLD.weights, MANY, BASIS, EXACT)


@pytest.fixture(scope="module")
def alone() -> tuple[Erasure, ...]:
    return tuple(erase(WORLD.weights, [concept], BASIS, EXACT)[0] for concept in MANY)


def test_detectors_of_one_request_see_only_their_own_concept() -> None:
    """a_i · c_j = δ_ij: each map sends its own target to D and every other target to nothing."""
    guards = [find_leading(BASIS.project(concept.targets), 1.0) for concept in MANY]
    sizes = outputs(EYE, ALL).norm(dim=0)
    for i, concept in enumerate(MANY):
        others = torch.linalg.qr(torch.cat([g for j, g in enumerate(guards) if j != i]).T)[0].T
        seen = outputs(map_of(concept, BASIS, replace(EXACT, ridge=0.0), others), ALL)  # [Σ o, 10]
        assert relative(seen[:, i], outputs(EYE, concept.anchors - concept.targets)[:, 0]) < 1e-9
        assert float((seen.norm(dim=0) / sizes)[[j for j in range(10) if j != i]].max()) < 1e-10


def test_each_patch_of_a_request_does_the_same_with_and_without_the_others(joint: tuple[Erasure, ...]) -> None:
    """Leave one out: its concept comes back, all others stay erased. To the grid."""
    present = outputs(EYE, ALL).norm(dim=0)
    whole = torch.stack([effect(erasure, ALL) for erasure in joint])  # [10, Σ o, 10]
    for i, concept in enumerate(MANY):
        rest = (whole.sum(0) - whole[i])[:, i]
        assert float(rest.norm() / present[i]) < 2e-6
        own = whole[i][:, i] - outputs(EYE, concept.anchors - concept.targets)[:, 0]
        assert float(own.norm() / present[i]) < 2e-3  # the ridge
    assert all(erasure.guarded == 9 for erasure in joint)


def test_cross_talk_of_independent_patches_is_predicted_by_their_detectors(alone: tuple[Erasure, ...]) -> None:
    """‖Δ_i c_j‖ = ‖W d_i‖ · |a_i · c_j|; and it is large, so patches of separate requests need a check."""
    P, talk = projector(BASIS), torch.zeros(10, 10, dtype=torch.float64)
    for i, (concept, erasure) in enumerate(zip(MANY, alone, strict=True)):
        c = concept.targets
        a = (P @ c)[:, 0] / (ridge(concept, P) + float(c.T @ P @ c))
        asked = float(outputs(EYE, concept.anchors - c).norm())
        talk[i] = a @ ALL
        for j in range(10):
            found = float(effect(erasure, ALL[:, j : j + 1]).norm())
            assert found == pytest.approx(asked * abs(float(talk[i, j])), abs=1e-5 * asked)
    off = talk - torch.diag(torch.diagonal(talk))
    assert float(off.abs().max()) > 0.05


def test_patches_that_protect_each_others_targets_add_up(alone: tuple[Erasure, ...]) -> None:
    """Each solved alone, with the other targets among what must not be touched."""
    first, second = MANY[:2]
    mutual = []
    for own, other in ((first, second), (second, first)):
        exact = torch.cat([WORLD.reference.invariants, other.targets.T])
        basis = build_protected_basis(exact, WORLD.reference.retained, WORLD.rule)
        mutual.append(erase(WORLD.weights, [own], basis, EXACT)[0])
    for i, erasure in enumerate(mutual):
        c = MANY[1 - i].targets
        assert float(effect(erasure, c).norm() / outputs(EYE, c).norm()) < 1e-6
        assert float(effect(alone[i], c).norm() / outputs(EYE, c).norm()) > 1e-3


def test_erasing_one_after_the_other_depends_on_the_order_and_sums_over_the_base_do_not(
    alone: tuple[Erasure, ...],
) -> None:
    """Why every patch is computed on the pristine base: a map of edited weights is another map."""
    forward = backward = EYE
    for concept in MANY:
        forward = forward @ (EYE + map_of(concept, BASIS, EXACT))
    for concept in reversed(MANY):
        backward = backward @ (EYE + map_of(concept, BASIS, EXACT))
    assert relative(outputs(forward, EYE) - outputs(EYE, EYE), outputs(backward, EYE) - outputs(EYE, EYE)) > 0.01
    sums = [effect(erasure, EYE) for erasure in alone]
    assert torch.equal(sum(sums[1:], sums[0]), sum(sums[-2::-1], sums[-1]))


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_target_inside_the_protected_span_is_refused_with_the_number() -> None:
    inside = WORLD.retained_columns[:, :1] * 0.5 + WORLD.retained_columns[:, 1:2] * 0.5
    concept = Columns("it's a dog", inside, columns(1).anchors)
    with pytest.raises(ErasureRefusedError, match="lies inside the protected set") as caught:
        erase(WORLD.weights, [concept], BASIS, EXACT)
    assert caught.value.details["concept"] == "it's a dog"
    assert float(str(caught.value.details["free"])) < 1e-3
    assert caught.value.hint.endswith("--rank-rule relative:1e-08")


@pytest.mark.parametrize(("share", "refused"), [(0.9e-3, True), (1.1e-3, False)])
def test_the_floor_of_what_must_be_free(share: float, refused: bool) -> None:
    kept, free = BASIS.rows[0], BASIS.project(columns(1).targets)[:, 0]
    target = (1 - share**2) ** 0.5 * kept + share * free / free.norm()
    concept = Columns("dog", 28 * target[:, None], 28 * target[:, None] + 0.01 * columns(1).anchors)
    if refused:
        with pytest.raises(ErasureRefusedError):
            erase(WORLD.weights, [concept], BASIS, EXACT)
    else:
        assert erase(WORLD.weights, [concept], BASIS, EXACT)[0].free == pytest.approx(share**2, rel=1e-6)


def test_the_same_concept_under_two_names_is_refused() -> None:
    with pytest.raises(ErasureRefusedError, match="span of the other concepts of this request"):
        erase(WORLD.weights, [columns(1), replace(columns(1), name="hound")], BASIS, EXACT)


def test_responses_that_the_grid_cannot_hold_are_refused() -> None:
    far = replace(columns(1), anchors=columns(1).anchors * 1e4)
    with pytest.raises(BoundExceededError, match="too close to what is protected"):
        erase(WORLD.weights, [far], BASIS, EXACT)


@pytest.mark.parametrize(
    "options",
    [{"ridge": -1e-9}, {"ridge": 1.0}, {"energy": 0.0}, {"energy": 1.1}, {"guard": 0.0}, {"rank_limit": 0}]
    + [{name: float("nan")} for name in ("ridge", "energy", "guard")],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        NullSpace(**options)  # type: ignore[arg-type]


# --- Choosing a rank --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_the_kept_rank_carries_that_share_of_the_effect(energy: float) -> None:
    concept = columns(40)
    whole = outputs(map_of(concept, BASIS, EXACT), concept.targets)
    kept = outputs(map_of(concept, BASIS, replace(EXACT, energy=energy)), concept.targets)
    share = float((kept.norm() / whole.norm()) ** 2)
    assert energy <= share < energy + 0.05


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_the_rank_limit_holds_and_keeps_the_strongest(limit: int) -> None:
    concept = columns(40)
    (erasure,) = erase(WORLD.weights, [concept], BASIS, replace(EXACT, rank_limit=limit))
    assert {increment.rank for increment in erasure.increments.values()} == {limit}
    values = torch.linalg.svdvals(outputs(map_of(concept, BASIS, EXACT), concept.targets)).square()
    kept = effect(erasure, concept.targets).square().sum()
    assert float(kept) == pytest.approx(float(values[:limit].sum()), rel=1e-3)


def test_all_layers_share_one_detector() -> None:
    (erasure,) = erase(WORLD.weights, [columns(10)], BASIS, EXACT)
    first, *others = erasure.increments.values()
    assert all(torch.equal(first.A, other.A) for other in others)


def test_weights_in_half_precision_give_the_erasure_of_what_they_are() -> None:
    half = {name: weight.half() for name, weight in WORLD.weights.items()}
    same = {name: weight.double() for name, weight in half.items()}
    one, other = (erase(weights, [columns(3)], BASIS, EXACT)[0] for weights in (half, same))
    for name in half:
        assert torch.equal(one.increments[name].B, other.increments[name].B)


@pytest.mark.parametrize("overlap", [False, True])
def test_one_factorisation_of_all_leaves_each_concept_what_its_own_would(overlap: bool) -> None:
    guards = [find_leading(BASIS.project(columns(3, seed).targets), 0.9999) for seed in range(20, 28)]
    if overlap:
        guards[1] = guards[0]  # neither has anything of its own
    X = factories.normal(5, 768, 4)
    found = make_projectors(BASIS, guards)
    assert len({id(project.guard) for project in found}) == (len(guards) if overlap else 1)
    for i, project in enumerate(found):
        alone = make_projector(BASIS, guards, i)
        assert project.taken == alone.taken
        assert float((project(X) - alone(X)).norm() / X.norm()) < 1e-12
        others = torch.cat([guard for j, guard in enumerate(guards) if j != i])
        assert float((others @ project(X)).norm() / X.norm()) < 1e-12
