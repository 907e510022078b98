"""SepME's identities: its loss, its room, decoupled weights, what a patch does beside others and without them."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models.trainable import (
    Exact,
    added,
    base,
    bits,
    denoiser,
    of_patch,
    patches,
    problem,
    quick,
    relative,
    request,
    silent,
    untouched,
)
from support.values.factories import normal

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.compose import Term, compose, sum_increments
from rasura.patches.algebra.protected_subspace import make_empty_basis
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.check import Accepted, check
from rasura.patches.erasers.interface import Problem
from rasura.patches.erasers.trained.prompt_null_space import (
    Protection,
    Room,
    capacity,
    compute_complement,
    detectors,
    extend_basis,
    others_of,
    room_of,
    stack_parts,
)
from rasura.patches.erasers.trained.sepme import SepMe
from rasura.patches.erasers.trained.sepme_loss import (
    ETA_LIMIT,
    Lesson,
    before,
    compute_correlation,
    compute_mean_norm,
    join_columns,
    left,
    objective,
    weights,
)
from rasura.patches.erasers.trained.training_loop import derive_seed
from rasura.patches.erasers.trained.training_samples import drawn, responses, scenes, trace_branches
from rasura.patches.errors import ErasureRefusedError, InputError
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.models.denoiser import LayerFactors
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.types import ParamName

WORDS = ("dog", "van gogh", "painting")

# --- (1) The loss -----------------------------------------------------------------------------------------------------


def test_the_correlation_is_the_mean_square_at_first_zero_when_nothing_is_left_and_negative_beyond() -> None:
    r = normal(1, 4, 8, 8)
    assert float(compute_correlation(r, r)) == pytest.approx(float(r.square().mean()), rel=1e-12)
    assert float(compute_correlation(torch.zeros_like(r), r)) == 0
    assert float(compute_correlation(-r, r)) == pytest.approx(-float(r.square().mean()), rel=1e-12)
    assert float(compute_correlation(-1000 * r, r)) == pytest.approx(-1000 * float(r.square().mean()), rel=1e-12)


def test_before_training_a_concepts_correlation_is_its_mean_square() -> None:
    lesson = lesson_of(problem(request(quick(SepMe))), 0)
    found = float(left(denoiser(), lesson, join_columns([lesson]), batch=32, seed=derive("dog")).detach())
    assert found == pytest.approx(before(denoiser(), [lesson], 7), rel=1e-5)
    assert found > 0


def derive(concept: str) -> int:
    return derive_seed(7, concept)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_weights_even_concepts_out_and_are_clamped(losses: list[float]) -> None:
    """η_i·|L_i| is the same for all, as far as the clamp lets it."""
    found, largest = weights(losses), max(map(abs, losses))
    for eta, loss in zip(found, losses, strict=True):
        assert 1 - 1e-12 <= eta <= ETA_LIMIT
        if abs(loss) * ETA_LIMIT > largest:
            assert eta * abs(loss) == pytest.approx(largest)


def test_the_norm_is_the_mean_over_layers_of_the_sum_of_sizes() -> None:
    parts = [LayerFactors(normal(i, 2, 5), normal(10 + i, 3, 2)) for i in range(3)]
    expected = sum(float((p.B @ p.A).abs().sum()) for p in parts) / 3
    assert float(compute_mean_norm(parts)) == pytest.approx(expected, rel=1e-12)


def test_weights_of_concepts_carry_no_gradient() -> None:
    """The gradient of η·L is η times the gradient of L."""
    asked = problem(request(quick(SepMe), "dog", "van gogh"))
    lessons = [lesson_of(asked, 0), lesson_of(asked, 1)]
    spread(lessons)
    found = objective(denoiser(), lessons, batch=2, lam=0.0, seed=3)
    found.total.backward()  # type: ignore[no-untyped-call]

    alone = [
        left(denoiser(), one, join_columns(lessons), batch=2, seed=derive_seed(3, one.scene.concept)) for one in lessons
    ]
    etas = weights([float(loss.detach()) for loss in alone])
    name = next(iter(lessons[0].responses))
    own = [torch.autograd.grad(loss, lessons[0].responses[name], retain_graph=True)[0] for loss in alone]
    expected = sum(eta * g for eta, g in zip(etas, own, strict=True))
    assert isinstance(expected, torch.Tensor)
    gradient = lessons[0].responses[name].grad
    assert gradient is not None
    assert relative(gradient, expected) < 1e-4


# --- (2) Room ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "left_over"), [(1, 691), (2, 615), (3, 539), (4, 463), (9, 83), (10, 7), (11, 0), (12, 0)]
)
def test_each_whole_prompt_costs_76_of_768_dimensions(prompts: int, left_over: int) -> None:
    assert capacity(768, 77, prompts) == left_over


def like_prompts(count: int, width: int = 768, length: int = 77) -> torch.Tensor:
    """Token embeddings [count · length, width] that share their first row."""
    rows = normal(5, count, length, width)
    rows[:, 0] = rows[0, 0].clone()
    return rows.reshape(-1, width)


@pytest.mark.parametrize("prompts", [1, 3, 9, 10])
def test_what_is_left_beside_whole_prompts_is_their_null_space(prompts: int) -> None:
    E = like_prompts(prompts)
    basis = extend_basis(make_empty_basis(768), stack_parts(E.view(-1, 77, E.shape[1]), 768), 0.0)
    S = compute_complement(basis)
    assert S.shape == (capacity(768, 77, prompts), 768)
    assert float((S @ S.T - torch.eye(S.shape[0], dtype=torch.float64)).abs().max()) < 1e-12
    assert float((E @ S.T).norm() / E.norm()) < 1e-12
    rows = basis.rows
    assert float((rows @ rows.T - torch.eye(rows.shape[0], dtype=torch.float64)).abs().max()) < 1e-12


def test_eleven_whole_prompts_fill_768_dimensions() -> None:
    assert extend_basis(make_empty_basis(768), stack_parts(like_prompts(11).view(11, 77, 768), 768), 0.0).rank == 768


def test_stacking_keeps_the_gram_matrix() -> None:
    E = like_prompts(12, 200)
    found = stack_parts(E.view(-1, 77, E.shape[1]), 200)
    assert found.shape == (200, 200)
    assert relative(found.T @ found, E.T @ E) < 1e-12


def test_a_looser_tolerance_takes_less_room_and_leaks_more() -> None:
    sizes, leaks = [], []
    E = like_prompts(1, 128) * torch.logspace(0, -6, 77, dtype=torch.float64)[:, None]
    for tolerance in (0.0, 1e-8, 1e-4, 1e-1):
        found = extend_basis(make_empty_basis(128), E, tolerance)
        sizes.append(found.rank)
        leaks.append(float(found.project(E.T).norm() / E.norm()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 77
    assert leaks == sorted(leaks)
    assert leaks[0] < 1e-12


def test_a_text_encoder_without_room_refuses_with_concept_and_way_out() -> None:
    """Width 128: the null prompt and one other whole prompt fill it."""
    with untouched(), pytest.raises(ErasureRefusedError, match="nothing is left to erase with") as caught:
        patches(request(quick(SepMe, tolerance="0"), *WORDS))
    assert caught.value.details["concept"] == "dog"
    assert "room for 1 whole prompts" in caught.value.message
    assert caught.value.hint == "--set tolerance=1e-06"


def test_informative_rows_take_less_room_and_report_what_they_leak(trained: tuple[Patch, ...]) -> None:
    whole, few = (
        room_of(problem(request(quick(SepMe), *WORDS)), 0, Protection(1e-4, rows)) for rows in ("all", "informative")
    )
    assert few.left > whole.left
    assert torch.allclose(few.prompts.T @ few.prompts, whole.prompts.T @ whole.prompts)
    first = trained[0]  # of all rows
    second = patches(request(quick(SepMe, protect_rows="informative", lr="1", tolerance="1e-4"), *WORDS))[0]
    leaks = [float(patch.manifest.measured["leak_prompts"]) for patch in (first, second)]
    assert leaks[0] < leaks[1] < 1
    assert int(first.manifest.measured["dimensions_left"]) == whole.left
    assert int(first.manifest.measured["dimensions_used"]) + whole.left == 128
    assert first.manifest.measured["guarded_prompts"] == "2"


def test_prompts_that_name_the_concept_itself_are_not_protected() -> None:
    asked = replace(request(quick(SepMe), *WORDS), templates=("{}", "{} of a dog"))
    found = [prompt for prompt, _ in others_of(problem(asked), 0)]
    assert found == ["van gogh", "painting"]


def test_a_watermark_is_held_as_exactly_as_the_null_prompt() -> None:
    """With the null prompt's 77 and the watermark's 51 dimensions, a model of width 128 has none left; of a part, some."""
    with pytest.raises(ErasureRefusedError):
        patches(request(quick(SepMe, watermark="photo")))
    asked = problem(request(quick(SepMe)))
    plain = room_of(asked, 0, Protection(1e-6)).basis
    assert plain.invariants == 77


# --- (3), (4) Decoupled weights on a real UNet ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact() -> Exact:
    return Exact()


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    asked = problem(request(quick(SepMe), *WORDS))
    return [room_of(asked, i, Protection(1e-6, "informative")) for i in range(3)]


def sharp(index: int, *others: int) -> dict[ParamName, LayerFactors]:
    """An increment as SepME would train it, in float64, with random responses; protects what its indices name.

    On a tiny model three whole prompts have no room; the span of the others' few informative rows is held to the last
    bit instead, and what is then exact is the effect on those rows.
    """
    asked = problem(request(quick(SepMe), *WORDS))
    rows = stack_parts([tokens(i) for i in others], 128)
    A, _ = detectors(asked.columns[index], extend_basis(asked.basis(), rows, 0.0), 3)
    return {
        name: LayerFactors(A, normal(100 * index + i, w.shape[0], A.shape[0]))
        for i, (name, w) in enumerate(asked.weights.items())
    }


def tokens(index: int) -> torch.Tensor:
    """A short prompt [8, 128]: as many tokens as there is room to protect."""
    return base().encoder.encode_all([WORDS[index]])[0, :8]


@pytest.mark.parametrize("alpha", [1.0, -1.0, 0.37, -3.5, 1e3])
def test_a_protected_prompt_is_predicted_as_before_under_every_subset_and_strength(exact: Exact, alpha: float) -> None:
    null = problem(request(quick(SepMe))).reference.invariants
    parts = [sharp(0, 1, 2), sharp(1, 0, 2), sharp(2, 0, 1)]
    for prompt in (null, null[:8]):
        for count in (1, 2, 3):
            z, t = exact.latents(2, seed=count)
            found = exact(z, t, prompt, added(*[(alpha * (i - 0.5), part) for i, part in enumerate(parts[:count])]))
            assert relative(found, exact(z, t, prompt)) < 1e-12 * max(1, abs(alpha))


def test_what_one_patch_does_is_the_same_with_and_without_the_others(exact: Exact) -> None:
    parts = [sharp(0, 1, 2), sharp(1, 0, 2), sharp(2, 0, 1)]
    z, t = exact.latents(3, seed=9)
    for j in range(3):
        alone, plain = exact(z, t, tokens(j), parts[j]), exact(z, t, tokens(j))
        assert relative(alone, plain) > 1e-3
        for others in ([], [(j + 1) % 3], [(j + 2) % 3], [k for k in range(3) if k != j]):
            with_it = exact(z, t, tokens(j), added(*[(1.0, parts[k]) for k in [j, *others]]))
            assert relative(with_it, alone) < 1e-12
            if others:
                without = exact(z, t, tokens(j), added(*[(1.0, parts[k]) for k in others]))
                assert relative(without, plain) < 1e-12


@pytest.fixture(scope="module")
def trained() -> tuple[Patch, ...]:
    """Three concepts of one request; the tolerance lets little-used directions of 77 tokens go."""
    return patches(request(quick(SepMe, lr="1", tolerance="1e-4"), *WORDS))


def test_patches_of_one_request_are_separable_and_the_composer_proves_it(trained: tuple[Patch, ...]) -> None:
    verdict = check([Member(patch) for patch in trained])
    assert isinstance(verdict, Accepted), verdict
    pairs = [relation.value for relation in verdict.relations if relation.check == "pair"]
    assert len(pairs) == 6
    assert max(pairs) < 0.05
    for patch in trained:
        assert patch.manifest.separable
        assert patch.manifest.eraser.seed == 0
        rows = patch.tensors.protected
        assert float((rows @ rows.T - torch.eye(rows.shape[0], dtype=torch.float64)).abs().max()) < 1e-12
        for increment in patch.tensors.increments.values():
            seen = increment.A.double() @ rows.T
            assert float(seen.norm() / increment.A.double().norm()) < 1e-5


def test_the_null_prompt_is_predicted_as_before_in_float32(trained: tuple[Patch, ...]) -> None:
    own, (null, dog) = denoiser(), base().encoder.encode_all(["", "dog"])
    z, t = own.noise(4, 2), torch.tensor([10, 900])

    def moved(states: torch.Tensor) -> float:
        with torch.no_grad():
            plain = own.predict(z, t, states.expand(2, -1, -1))
            with own.branch(added(*[(1.0, of_patch(patch, torch.float32)) for patch in trained])):
                return relative(own.predict(z, t, states.expand(2, -1, -1)), plain)

    assert moved(null) < 1e-4 * moved(dog)


# --- (5) Without mutual protection ------------------------------------------------------------------------------------


def test_a_concept_erased_later_comes_back_to_what_the_earlier_patch_left_and_the_check_says_one_sided(
    exact: Exact,
) -> None:
    """Scene 3: D does not know c1, which is erased afterwards beside D; without it, D's effect on c1 is still there."""
    (d,) = patches(request(quick(SepMe, lr="1"), "dog", tokens="subject"))
    later = request(quick(SepMe, lr="1", tolerance="1e-4"), "van gogh", tokens="subject")
    guarded = {d.patch_id: d.tensors.targets}
    (c1,) = patches(replace(later, guarded=guarded, guarded_prompts={d.patch_id: prompts_of("dog", ("{}",))}))
    assert c1.manifest.measured["guarded_prompts"] == "1"
    z, t = exact.latents(2)
    prompt = base().encoder.encode_all(["van gogh"])[0]
    plain, under_d = exact(z, t, prompt), exact(z, t, prompt, of_patch(d))
    both = exact(z, t, prompt, added((1.0, of_patch(d)), (1.0, of_patch(c1))))
    assert relative(both, under_d) > 1e-3  # erased
    assert relative(under_d, plain) > 1e-3  # and restored to D's state, not to the base
    dog = base().encoder.encode_all(["dog"])[0]
    with_both = exact(z, t, dog, added((1.0, of_patch(d)), (1.0, of_patch(c1))))
    assert relative(with_both, exact(z, t, dog, of_patch(d))) < relative(under_d, plain)
    verdict = check([Member(d), Member(c1)])
    (shown,) = [relation for relation in verdict.relations if relation.check == "one-sided"]
    assert (shown.patch, shown.other) == (d.patch_id, c1.patch_id)
    assert shown.value > 1e-3
    assert shown.holds


# --- (6) Optimisation decoupling --------------------------------------------------------------------------------------


def lesson_of(asked: Problem, index: int, tolerance: float = 1e-4) -> Lesson:
    own = denoiser()
    scene = scenes(asked, index, own)
    A, _ = detectors(asked.columns[index], room_of(asked, index, Protection(tolerance)).basis, 3)
    pictures, which = drawn(own, scene, 2, steps=1, guidance=3.0, seed=0, progress=silent)
    return Lesson(scene, A.float(), responses(asked, A.shape[0], own.device), pictures, which)


def spread(lessons: list[Lesson], scale: float = 0.05) -> None:
    with torch.no_grad():
        for i, lesson in enumerate(lessons):
            for j, B in enumerate(lesson.responses.values()):
                B.copy_(scale * normal(10 * i + j, *B.shape))


def test_gradients_are_the_same_with_and_without_another_concepts_patch() -> None:
    """The other is orthogonal to all of this concept's tokens (to the last bit of float32)."""
    asked = problem(request(quick(SepMe), "dog", "van gogh"))
    first, second = lesson_of(asked, 0), lesson_of(asked, 1)
    whole = base().encoder.encode_all(["dog"])[0]  # beside the null prompt's tokens, width 128 has no room for these
    free, _ = detectors(asked.columns[1], extend_basis(make_empty_basis(128), whole, 0.0), 3)
    second = replace(second, detector=free.float(), responses=responses(asked, free.shape[0], denoiser().device))
    assert free.shape[0] > 0
    spread([first, second])
    found = []
    for group in ([first], [first, second]):
        loss = left(denoiser(), first, join_columns(group), batch=2, seed=5)
        found.append(torch.autograd.grad(loss, list(first.responses.values())))
    for alone, beside in zip(*found, strict=True):
        assert relative(beside, alone) < 1e-4


# --- (7) A linear denoiser --------------------------------------------------------------------------------------------


def toy() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ε = W·e: the concept's residual r = W(e_f − e_∅), its embedding, and an orthonormal basis of the free space."""
    e, kept, W = normal(1, 30), normal(2, 5, 30), normal(3, 12, 30)
    return W @ (e - kept[0]), e, compute_complement(extend_basis(make_empty_basis(30), kept, 0.0))


def test_the_smallest_solution_of_a_linear_denoiser_has_rank_one() -> None:
    r, e, S = toy()
    Pe = S.T @ (S @ e)
    smallest = -torch.outer(r, Pe) / Pe.square().sum()
    assert abs(float(compute_correlation(r + smallest @ e, r))) < 1e-12
    assert int(torch.linalg.matrix_rank(smallest)) == 1


def test_gradient_descent_on_a_linear_denoiser_reaches_the_threshold_when_predicted() -> None:
    """Step ⌈(L0 − τ)·n² / (lr·‖r‖²·‖S e‖²)⌉, on the ray of the smallest solution."""
    r, e, S = toy()
    B, n, lr, tau = torch.zeros(12, S.shape[0], dtype=torch.float64, requires_grad=True), 12, 0.02, 0.01
    start = float(r.square().mean())
    predicted = math.ceil((start - tau) * n**2 / (lr * float(r.square().sum()) * float((S @ e).square().sum())))
    steps = 0
    while (loss := compute_correlation(r + B @ (S @ e), r)) > tau:
        (gradient,) = torch.autograd.grad(loss, B)
        B.data.sub_(lr * gradient)
        steps += 1
    assert steps == predicted
    assert steps > 3
    ray = -torch.outer(r, S @ e)
    assert float((B.detach() * ray).sum() / (B.detach().norm() * ray.norm())) == pytest.approx(1, abs=1e-12)


# --- (8) Compression --------------------------------------------------------------------------------------------------


def test_a_full_run_is_compressed_without_changing_what_it_does_to_the_concept() -> None:
    """ΔW·AᵀA: the same effect on every token of the concept, none on what is protected, smaller, of lower rank."""
    choices = {"basis": "full", "lr": "0.5", "rank": "60", "steps": "4"}
    whole, pressed = (
        patches(request(quick(SepMe, export=export, rank_limit="64", **choices), tokens="subject"))[0]
        for export in ("whole", "compressed")
    )
    columns = problem(request(quick(SepMe), tokens="subject")).columns[0].targets
    null = base().encoder.encode_all([""])[0].T
    for name, increment in whole.tensors.increments.items():
        other = pressed.tensors.increments[name]
        assert relative(other.dense() @ columns, increment.dense() @ columns) < 1e-4
        assert float((other.dense() @ null).norm() / null.norm()) < 1e-5 * float(other.dense().norm())
        assert float(other.dense().norm()) < float(increment.dense().norm())
        assert other.rank < increment.rank
    assert max(i.rank for i in whole.tensors.increments.values()) == 128 - 77  # Adam: all that is free


def test_the_rank_limit_of_a_whole_export_keeps_the_strongest() -> None:
    choices = {"basis": "full", "lr": "0.5", "export": "whole"}
    found = [patches(request(quick(SepMe, rank_limit=limit, **choices)))[0] for limit in ("5", "51")]
    first, whole = (torch.cat([i.dense() for i in p.tensors.increments.values()]) for p in found)
    assert {i.rank for i in found[0].tensors.increments.values()} == {5}
    values = torch.linalg.svdvals(whole).square()
    assert float((whole - first).norm().square()) == pytest.approx(float(values[5:].sum()), rel=1e-3)


# --- The runs ---------------------------------------------------------------------------------------------------------


def test_training_lowers_the_correlation_and_stops_at_its_threshold() -> None:
    method = quick(SepMe, steps="60", lr="0.1", batch="2", tau="0", tau_unit="share", rank="8")
    (patch,) = patches(request(method))
    measured = patch.manifest.measured
    assert measured["stopped_early"] == "1"
    assert 12 <= int(measured["steps"]) < 60
    assert float(measured["loss_last"]) <= 0 < float(measured["loss_first"])
    assert float(measured["change_l1"]) > 0


def test_concepts_trained_together_and_apart_are_each_erased() -> None:
    apart, together = (
        patches(request(quick(SepMe, mode=mode, lr="0.1", steps="8", tolerance="1e-4"), "dog", "van gogh"))
        for mode in ("separate", "simultaneous")
    )
    for patch in (*apart, *together):
        assert float(patch.manifest.measured["effect"]) > 1e-3
    assert bits(together[0]) != bits(apart[0])
    assert isinstance(check([Member(patch) for patch in together]), Accepted)


def test_a_stronger_regulariser_makes_a_smaller_change() -> None:
    sizes = [
        float(patches(request(quick(SepMe, lam=lam, steps="8")))[0].manifest.measured["change_l1"])
        for lam in ("0", "1e-3")
    ]
    assert sizes[1] < sizes[0]


def test_accumulated_gradients_give_another_patch() -> None:
    plain, summed = (patches(request(quick(SepMe, accumulate=which)))[0] for which in ("no", "yes"))
    assert bits(plain) != bits(summed)


def test_neutral_prompts_are_the_null_prompt_or_the_template_with_the_anchor() -> None:
    asked = problem(replace(request(quick(SepMe), anchor="cat"), templates=("{}", "a photo of {}")))
    anchored, null = (scenes(asked, 0, denoiser(), anchored=which) for which in (True, False))
    wanted = base().encoder.encode_all(["cat", "a photo of cat"]).float()
    assert torch.equal(anchored.neutral, wanted)
    assert torch.equal(null.neutral[1], base().encoder.encode_all([""])[0].float())
    assert anchored.prompts == ("dog", "a photo of dog")


@pytest.mark.parametrize("choice", [{"lr": 0.0}, {"steps": 0}, {"mode": "both"}, {"basis": "half"}, {"tolerance": 2.0}])
def test_choices_out_of_range_are_refused(choice: Mapping[str, float | str]) -> None:
    with pytest.raises(InputError, match="option"):
        SepMe(**choice)  # type: ignore[arg-type]


# --- (13), (14), (15) Composition, reverting, precision ---------------------------------------------------------------


def test_strengths_scale_and_factors_are_not_summed(trained: tuple[Patch, ...]) -> None:
    name = next(iter(trained[0].tensors.increments))
    one, two = (patch.tensors.increments[name] for patch in trained[:2])
    half = Strength(8)
    assert torch.equal(sum_increments([Term(one, half)]), 0.5 * one.dense())
    found = sum_increments([Term(one, half), Term(two, half)])
    assert torch.equal(found, 0.5 * one.dense() + 0.5 * two.dense())
    k = min(one.rank, two.rank)
    summed = (0.5 * one.B[:, :k] + 0.5 * two.B[:, :k]).double() @ (0.5 * one.A[:k] + 0.5 * two.A[:k]).double()
    assert relative(summed, found) > 0.1  # what SPM's released inference computes


def test_a_composed_weight_depends_on_the_set_alone_and_adding_then_subtracting_does_not_restore(
    trained: tuple[Patch, ...],
) -> None:
    name = next(iter(trained[0].tensors.increments))
    weight = base().host.originals([name])[name]
    terms = [Term(patch.tensors.increments[name]) for patch in trained]
    orders = [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    assert len({digest_tensor(compose(weight, [terms[i] for i in order])) for order in orders}) == 1
    assert digest_tensor(compose(weight, [])) == digest_tensor(weight)
    naive = copy.deepcopy(weight)
    for sign in (1, -1):
        for term in terms:
            naive += sign * term.increment.dense().to(naive.dtype)
    assert float((naive != weight).double().mean()) > 0.01


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("float32", 0, 1e-6), ("float16", 1e-6, 3e-2), ("bfloat16", 1e-5, 3e-1)]
)
def test_leak_over_effect_of_merged_weights_grows_with_the_rounding(dtype: str, low: float, high: float) -> None:
    """W' x − W x with both weights rounded: a patch whose detector ignores x moves it by rounding alone."""
    increments = sharp(0)
    leak = effect = 0.0
    null, own = base().encoder.encode_all([""])[0].T, tokens(0).T
    for name, factors in increments.items():
        weight = base().host.originals([name])[name].double()
        cast = getattr(torch, dtype)
        changed = (weight + 0.01 * factors.B @ factors.A).to(cast).double() - weight.to(cast).double()
        leak += float((changed @ null).square().mean())
        effect += float((changed @ own[:, 1:]).square().mean())
    assert low <= (leak / effect) ** 0.5 < high


def test_nothing_but_text_is_read(trained: tuple[Patch, ...]) -> None:
    assert not trained[0].manifest.protected.reads
    assert trained[0].manifest.version == 1
    assert TEXT not in trained[0].manifest.protected.reads.values()
    name = next(iter(trained[0].tensors.increments))
    assert trace_branches(trained[0].tensors.increments[name].A, {name: trained[0].tensors.increments[name].B})
