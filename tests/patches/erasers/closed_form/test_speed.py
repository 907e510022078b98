"""SPEED as a whole: against a transcription of its formulas, and what its patches promise."""

import cProfile
import pstats
from dataclasses import replace

import pytest
import torch
from support.models.tiny import TinySpec
from support.values.closed_form import Setting, eye, projector, relative, speed_map
from support.values.dense import energy
from support.values.factories import TinyBase, World, tiny_request

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.check import Accepted, check
from rasura.patches.erasers.closed_form.rece import Rece
from rasura.patches.erasers.closed_form.speed import Speed, _Layer, _solve
from rasura.patches.erasers.closed_form.speed_invariants import compute_invariant_columns
from rasura.patches.erasers.closed_form.speed_prior_shift import find_least_direction
from rasura.patches.erasers.closed_form.speed_refinement import CHUNK, ReplayableBatches, make_noise_source
from rasura.patches.erasers.closed_form.uce import Uce
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure
from rasura.patches.errors import ErasureRefusedError, InputError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import GENERIC_TEMPLATES, Target
from rasura.patches.types import PatchId

WORLD = World(width=128, retained=400, outs=(48, 160))
RULE = RankRule("absolute", 0.6)  # of 400 vectors, keeps some directions and leaves some
CODE = Speed(mode="code")
W = {name: weight.double() for name, weight in WORLD.weights.items()}
C2 = compute_invariant_columns(WORLD.reference.invariants, 3, 0)


def concepts(*counts: int) -> tuple[Columns, ...]:
    return tuple(WORLD.columns(f"concept {i}", 100 + i, count) for i, count in enumerate(counts))


def layers(options: Speed, *given: Columns, rule: RankRule = RULE) -> tuple[_Layer, ...]:
    """The solution before it is cut and rounded."""
    problem = Setting(WORLD, given, rule).problem()
    retained = ReplayableBatches(lambda: problem.retained("last"))
    return _solve(options, problem, W, given, retained).layers


def joined(given: tuple[Columns, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([c.targets for c in given], dim=1), torch.cat([c.anchors for c in given], dim=1)


def transcribed(weight: torch.Tensor, layer: int, given: tuple[Columns, ...], lamb: float) -> torch.Tensor:
    """ΔW as the authors' code computes it: means over concepts, plain shifts, pieces of 128, the reduced decomposition."""
    C1, C = joined(given)
    C0, n, identity = WORLD.retained_columns, len(given), eye(128)
    T, Q = C1 @ C1.T / n, C @ C1.T / n
    unguarded = weight @ (Q - T) @ torch.linalg.inv(identity + T)
    sizes = (unguarded @ C0).norm(dim=0)
    kept = C0[:, sizes > sizes.mean()]
    v = torch.linalg.svd(weight, full_matrices=False)[2][-1]
    v = v * torch.sign(v[v.abs().argmax()])
    source, pieces = make_noise_source(0, layer), []
    for piece in torch.split(kept, CHUNK, dim=1):
        t = torch.randn(piece.shape[1], 10, generator=source, dtype=torch.float64)
        noisy = (piece.T[:, None] + t[:, :, None] * v).reshape(-1, 128).T
        moved = (unguarded @ noisy).norm(dim=0)
        pieces.append(noisy[:, moved > moved.mean()])
    refined = torch.cat([kept, *pieces], dim=1)
    U, values, _ = torch.linalg.svd(refined @ refined.T / refined.shape[1])
    assert 0 < int((values < RULE.value).sum()) < 128
    free = U[:, values < RULE.value]
    root = n**0.5
    return weight @ speed_map(C1 / root, C / root, C2, free @ free.T, ridge=1.0, lamb=lamb)


@pytest.mark.parametrize("lamb", [0.0, 0.5])
@pytest.mark.parametrize("counts", [(1,), (4,), (1, 1, 1), (3, 2)], ids=str)
def test_the_codes_way_is_its_formulas_written_with_large_matrices(counts: tuple[int, ...], lamb: float) -> None:
    given = concepts(*counts)
    C1, C = joined(given)
    found = layers(replace(CODE, lamb=lamb), *given)
    for i, (layer, weight) in enumerate(zip(found, W.values(), strict=True)):
        assert relative(weight @ (C - C1) @ layer.A, transcribed(weight, i, given, lamb)) < 1e-9


def test_every_choice_can_be_made_apart_from_the_mode() -> None:
    """Paper and code differ; each of the code's ways, asked for one by one, makes the code's result of the paper's."""
    apart = Speed(moments="mean", shift="plain", filter="chunk", direction="reduced", tied="yes", nothing="start")
    given = concepts(2, 1)
    for one, other, paper in zip(layers(CODE, *given), layers(apart, *given), layers(Speed(), *given), strict=True):
        assert torch.equal(one.A, other.A)
        assert not torch.allclose(one.A, paper.A, rtol=1e-3)
    for change in ({"moments": "sum"}, {"shift": "squared"}, {"filter": "global"}, {"direction": "full"}):
        changed = layers(replace(CODE, **change), *given)  # type: ignore[arg-type]
        assert any(not torch.equal(a.A, b.A) for a, b in zip(layers(CODE, *given), changed, strict=True)), change


def test_a_named_mode_brings_its_authors_prompts_and_refuses_what_does_nothing() -> None:
    assert Speed.defaults.templates == Speed().defaults.templates == GENERIC_TEMPLATES
    assert CODE.defaults.templates == Uce().defaults.templates == Rece().defaults.templates == ("{}",)
    problem = Setting(WORLD, concepts(1), RULE, anchor="").problem()
    tail = replace(problem, request=replace(problem.request, tokens="tail"))
    with pytest.raises(InputError, match="nothing=start does nothing with tokens tail: expected last or end"):
        Speed(nothing="start").solve(tail)
    assert len(CODE.solve(tail)) == 1  # the mode's own way says nothing of other tokens


def test_without_copies_the_codes_filter_is_off_and_the_papers_is_not() -> None:
    given = concepts(1)
    assert {layer.refined.kept for layer in layers(replace(CODE, aug=0), *given)} == {400}
    assert max(layer.refined.kept for layer in layers(Speed(aug=0), *given)) < 300
    assert max(layer.refined.kept for layer in layers(replace(CODE, aug=0, tied="no"), *given)) < 300


def test_the_least_direction_is_computed_once_a_layer_and_only_for_noise() -> None:
    """It depends on the weights alone: rounds, and erasures without noisy copies, need it no more often."""

    def count(options: Speed) -> int:
        profile = cProfile.Profile()
        profile.runcall(options.solve, Setting(WORLD, concepts(1), RULE).problem())
        calls = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]  # (file, line, name) to counts
        return sum(c[1] for (_, _, name), c in calls if name == "find_least_direction")

    assert count(Speed()) == count(Speed(adversarial=2)) == len(W)
    assert count(Speed(shared=True)) == 1
    assert count(Speed(aug=0)) == 0


def test_one_detector_for_all_layers_uses_the_least_direction_of_their_sum() -> None:
    (layer,) = layers(Speed(shared=True), *concepts(1, 1))
    assert layer.names == tuple(W)
    both = torch.cat(list(W.values()))
    least = find_least_direction(W, reduced=False)
    assert float((both @ least).norm()) == pytest.approx(float(torch.linalg.svdvals(both)[-1]), rel=1e-6)
    erasures = Speed(shared=True).solve(Setting(WORLD, concepts(1, 1), RULE).problem())
    for erasure in erasures:
        first, second = erasure.increments.values()
        assert torch.equal(first.A, second.A)
        assert not erasure.bases


# --- Patches ----------------------------------------------------------------------------------------------------------


def erased(options: Speed, *given: Columns, rule: RankRule = RULE) -> tuple[Erasure, ...]:
    return options.solve(Setting(WORLD, given, rule).problem())


@pytest.mark.parametrize("options", [Speed(), CODE, Speed(shared=True), Speed(lamb=0.5), Speed(adversarial=1)], ids=str)
def test_increments_do_not_see_what_they_promise(options: Speed) -> None:
    for erasure in erased(options, *concepts(1, 3)):
        assert erasure.basis is not None
        for name, increment in erasure.increments.items():
            basis = erasure.bases.get(name, erasure.basis)
            assert relative(basis.rows @ basis.rows.T, eye(basis.rank)) < 1e-10
            assert float((increment.A.double() @ basis.rows.T).abs().max()) < 1e-5
            held = float((basis.project(C2).norm(dim=0) / C2.norm(dim=0)).max())
            assert held > 1e-3 if options.lamb else held < 1e-9


def test_each_concept_has_as_many_detectors_as_columns() -> None:
    for count, erasure in zip((1, 3), erased(Speed(), *concepts(1, 3)), strict=True):
        assert {increment.rank for increment in erasure.increments.values()} == {count}
        assert erasure.facts["columns"] == str(count)
        assert (erasure.facts["joint_columns"], erasure.facts["joint_concepts"]) == ("4", "2")


@pytest.mark.parametrize("shared", [False, True])
def test_a_cut_keeps_that_share_of_the_effect_and_adds_up_to_one_rank(shared: bool) -> None:
    (columns,) = concepts(40)
    (whole,) = erased(Speed(shared=shared), columns)
    for energy_ in (0.5, 0.9):
        (part,) = erased(Speed(shared=shared, energy=energy_), columns)
        assert len({increment.rank for increment in part.increments.values()}) == 1
        names = [[name] for name in W] if not shared else [list(W)]
        for group in names:
            kept, all_ = (
                torch.cat([e.increments[name].dense() @ columns.targets for name in group]).square().sum()
                for e in (part, whole)
            )
            assert energy_ <= float(kept / all_) < energy_ + 0.1
    (limited,) = erased(Speed(shared=shared, rank_limit=5), columns)
    assert {increment.rank for increment in limited.increments.values()} == {5}


def test_more_columns_than_dimensions_are_solved_all_the_same() -> None:
    (columns,) = concepts(200)
    (erasure,) = erased(Speed(rank_limit=1024), columns)
    for layer, weight in zip(layers(Speed(), columns), W.values(), strict=True):
        P = projector(layer.basis)
        dense = weight @ speed_map(columns.targets, columns.anchors, C2[:, :0], P, ridge=1.0)
        found = erasure.increments[layer.names[0]].dense()
        assert relative(weight @ (columns.anchors - columns.targets) @ layer.A, dense) < 1e-8
        assert relative(found @ columns.targets, dense @ columns.targets) < 1e-2  # the grid, 128 detectors


def test_guarded_targets_are_left_alone_exactly() -> None:
    guarded = {PatchId("0" * 64): WORLD.columns("guarded", 900, 5).targets.T.contiguous()}
    given = concepts(1, 1)
    with_, without = (Speed().solve(Setting(WORLD, given, RULE).problem(g)) for g in (guarded, None))
    rows = guarded[PatchId("0" * 64)]
    for erasure, bare in zip(with_, without, strict=True):
        for name, increment in erasure.increments.items():
            present = (W[name] @ rows.T).norm()
            assert float((increment.dense() @ rows.T).norm() / present) < 1e-5
            assert float((bare.increments[name].dense() @ rows.T).norm() / present) > 1e-3
            assert erasure.bases.get(name, erasure.basis).guards > 0  # type: ignore[union-attr]


def test_embeddings_that_bring_a_concept_back_are_erased_too() -> None:
    (columns,) = concepts(1)
    plain, hardened = erased(Speed(), columns)[0], erased(Speed(adversarial=2), columns)[0]
    assert {i.rank for i in plain.increments.values()} == {1}
    assert {i.rank for i in hardened.increments.values()} == {3}
    assert hardened.facts["columns"] == "3"


def test_an_empty_anchor_is_the_start_of_text_where_the_code_takes_it() -> None:
    (columns,) = concepts(1)
    null = WORLD.reference.invariants[0]
    ends = columns.anchors[:, 0]
    starts: tuple[Speed | Uce, ...] = (CODE, Uce())
    for options, anchor in (*((o, null) for o in starts), (Speed(), ends), (Uce(nothing="end"), ends)):
        (erasure,) = options.solve(Setting(WORLD, (columns,), RULE, anchor="").problem())
        for name, increment in erasure.increments.items():
            wanted, found = W[name] @ (anchor[:, None] - columns.targets), increment.dense() @ columns.targets
            assert float((wanted * found).sum() / (wanted.norm() * found.norm())) == pytest.approx(1.0, abs=1e-5)


def test_without_a_retain_set_the_null_prompt_is_retained() -> None:
    problem = Setting(WORLD, concepts(1), RankRule("relative", 1e-9)).problem(retained=WORLD.retained_columns[:, :0])
    (erasure,) = Speed(ipf=False, aug=0).solve(problem)
    null = WORLD.reference.invariants.T
    for name, increment in erasure.increments.items():
        assert float((increment.dense() @ null).norm() / (W[name] @ null).norm()) < 1e-5
    assert erasure.facts["retained_vectors"] == "4"


def test_the_same_seed_gives_the_same_erasure_and_another_seed_another() -> None:
    (columns,) = concepts(1)
    one, again, other = (erased(Speed(seed=seed), columns)[0] for seed in (1, 1, 2))
    for name, increment in one.increments.items():
        assert torch.equal(increment.A, again.increments[name].A)
        assert torch.equal(increment.B, again.increments[name].B)
    assert any(not torch.equal(i.A, other.increments[name].A) for name, i in one.increments.items())


def test_a_target_inside_what_is_protected_is_refused() -> None:
    inside = C2 @ torch.tensor([[0.5], [0.5], [0.0], [0.0]], dtype=torch.float64)
    with pytest.raises(ErasureRefusedError, match="lies inside the protected set") as caught:
        erased(Speed(), Columns("dog", inside, WORLD.columns("x", 3).anchors))
    assert caught.value.details["concept"] == "dog"
    with pytest.raises(ErasureRefusedError, match="takes all 128 dimensions"):
        erased(Speed(ipf=False), *concepts(1), rule=RankRule("relative", 1e-12))


@pytest.mark.parametrize(
    "options", [{"mode": "other"}, {"ridge": -1.0}, {"lamb": 0.5, "ridge": 0.0}, {"aug": -1}], ids=str
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Speed(**options)  # type: ignore[arg-type]


# --- On a model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Patch, ...]:
    # Ten layers: on the four of a smaller model, one of the two disturbs the other by more than the policy allows.
    base = TinyBase.at(tmp_path_factory.mktemp("speed") / "model", TinySpec(size="medium"))
    request = tiny_request(
        targets=(Target("dog", "cat"), Target("van gogh", "painting")),
        eraser=Speed(),
        layers="v",
        rule=RankRule("absolute", 0.1),
    )
    return base.build(request)


def test_patches_of_a_model_keep_their_promises_and_survive_the_file(patches: tuple[Patch, ...]) -> None:
    for patch in patches:
        assert patch.manifest.eraser.name == "speed"
        assert patch.manifest.eraser.seed == 0
        assert patch.tensors.spans
        assert Patch.from_files(patch.files()).patch_id == patch.patch_id
    verdict = check([Member(patch) for patch in patches])
    assert isinstance(verdict, Accepted)
    assert max(relation.value for relation in verdict.relations if relation.check == "own") < 1e-5


def test_cross_talk_of_joint_patches_is_that_of_the_ridge(patches: tuple[Patch, ...]) -> None:
    """Small, and not nothing: what the composer measures."""
    for p, q in (patches, reversed(patches)):
        targets = q.tensors.targets.T
        share = energy([Member(p)], targets) / energy([Member(q)], targets)
        assert 1e-6 < share < 0.05
