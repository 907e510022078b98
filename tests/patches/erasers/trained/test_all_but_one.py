"""All but One's identities: targets, drift, the two sides, dual ascent."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models.trainable import (
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

from rasura.patches.checks.check import Accepted, check, find_measured_only
from rasura.patches.erasers.catalogue import eraser, load_method
from rasura.patches.erasers.options import encode_options, with_options
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.erasers.trained import all_but_one
from rasura.patches.erasers.trained.all_but_one import AllButOne
from rasura.patches.erasers.trained.all_but_one_loss import (
    Views,
    Wanted,
    compute_drift_loss,
    compute_erase_loss,
    layout_kept,
    make_explicit,
    view_latents,
)
from rasura.patches.erasers.trained.sepme import SepMe
from rasura.patches.erasers.trained.training_loop import derive_seed
from rasura.patches.erasers.trained.training_samples import Scenes, partway, scenes
from rasura.patches.errors import InputError, UnsupportedHostError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import ParamName


def asked(anchor: str = "cat", layers: str = "kv", **choices: str) -> EraseRequest:
    return request(quick(AllButOne, **choices), anchor=anchor, layers=layers)


def views(wanted: Wanted, anchor: str = "cat", matching: torch.Tensor | None = None) -> tuple[Views, Scenes]:
    own = denoiser()
    scene = scenes(problem(asked(anchor)), 0, own)
    latents = partway(own, scene, 4, steps=2, guidance=3.0, seed=0, progress=silent)
    matching = torch.eye(77)[None] if matching is None else matching
    return view_latents(own, scene, latents, matching, wanted), scene


# --- (10) Targets before training -------------------------------------------------------------------------------------


def test_to_nothing_the_loss_is_at_first_the_mean_square_of_the_guidance() -> None:
    found, _ = views(Wanted("none"))
    for gamma in (1.0, 0.5, 3.0):
        loss = float(compute_erase_loss(found.target, found.guidance, (gamma, gamma)))
        assert loss == pytest.approx(gamma**2 * float(found.guidance.square().mean()), rel=1e-6)


def test_to_an_alternative_the_null_prompt_cancels() -> None:
    """γ²·mean((ε_c' − ε_c)²)."""
    found, scene = views(Wanted("alternative"))
    with torch.no_grad():
        own, other = (denoiser().predict(found.z, found.t, s.expand(4, -1, -1)) for s in (scene.states, scene.neutral))
    assert float(compute_erase_loss(found.target, found.guidance, (2.0, 2.0))) == pytest.approx(
        4 * float((other - own).square().mean()), rel=1e-3
    )


def test_a_concept_that_is_its_own_alternative_has_no_loss_and_no_gradient() -> None:
    found, _ = views(Wanted("alternative"))
    guidance = found.guidance.clone().requires_grad_()
    loss = compute_erase_loss(found.guidance, guidance)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert guidance.grad is not None
    assert float(guidance.grad.abs().max()) == 0


def test_the_explicit_target_without_a_quantile_is_the_alternative() -> None:
    """κ = 0, g = −1 for the concept and +1 for the anchor: ψ(c) − ψ(c) + ψ(c')."""
    plain, whole = views(Wanted("alternative"))[0], views(Wanted("explicit", kappa=0.0))[0]
    assert relative(whole.target, plain.target) < 3e-5


@given(st.floats(0, 1), st.integers(2, 6), st.integers(2, 6))
def test_the_mask_keeps_the_largest_of_each_channel(kappa: float, height: int, width: int) -> None:
    """The quantile falls between two sizes: at least ⌈(1−κ)·n⌉ − 1 and at most that many more stay; the largest always."""
    delta = normal(1, 2, 3, height, width)
    found, size = make_explicit([(1.0, delta)], kappa), height * width
    kept = (found != 0).flatten(2).sum(2)
    expected = size - math.ceil(kappa * (size - 1) - 1e-9)
    assert bool(((kept - expected).abs() <= 1).all())
    peak = delta.flatten(2).abs().argmax(2)
    assert torch.equal(found.flatten(2).gather(2, peak[..., None]), delta.flatten(2).gather(2, peak[..., None]))
    dropped = delta[found == 0].abs()
    if dropped.numel():
        assert bool((found.flatten(2).abs().masked_fill(found.flatten(2) == 0, math.inf).amin(2) > 0).all())


def test_signals_follow_their_signs_and_the_ends_of_the_quantile() -> None:
    one, two = normal(1, 1, 2, 4, 4), normal(2, 1, 2, 4, 4)
    assert torch.allclose(make_explicit([(-2.0, one), (0.5, two)], 0.0), -2 * one + 0.5 * two)
    assert torch.equal(make_explicit([(-1.0, one)], 0.5), -make_explicit([(1.0, one)], 0.5))
    assert int((make_explicit([(1.0, one)], 1.0) != 0).sum()) == 2  # one a channel


def test_esd_and_spm_are_the_same_loss_with_other_targets() -> None:
    """ESD: T = −η·ψ, or (1 − η)·ψ in its new form; SPM with η = 1: T = −ψ."""
    r = normal(3, 2, 4, 4, 4)
    size = float(r.square().mean())
    assert float(compute_erase_loss(-2 * r, r)) == pytest.approx((1 + 2) ** 2 * size)
    assert float(compute_erase_loss((1 - 2) * r, r)) == pytest.approx(2**2 * size)
    assert float(compute_erase_loss(-r, r)) == pytest.approx(4 * size)


def test_prompt_to_prompt_with_its_own_words_is_the_alternative() -> None:
    """The maps of c in a pass of c itself change nothing; of another, they do; late steps take none."""
    plain = views(Wanted("alternative"))[0]
    with untouched():
        late = views(Wanted("p2p", share=0.0))[0]
        early = views(Wanted("p2p", share=1.0))[0]
    assert relative(late.target, plain.target) < 3e-5
    assert relative(early.target, plain.target) > 1e-4
    eye, everywhere = torch.eye(77).expand(4, -1, -1), torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        same = layout_kept(denoiser(), (early.z, early.t), (early.states, early.states), eye, everywhere)
    assert relative(same - early.nothing, early.guidance) < 1e-4


# --- The text side ----------------------------------------------------------------------------------------------------


def test_the_null_prompt_does_not_drift_however_long_and_with_whatever_step() -> None:
    (patch,) = patches(asked(lr="0.5", steps="6"))
    measured = patch.manifest.measured
    assert float(measured["drift_null"]) < 1e-5 * max(1.0, float(measured["target_effect"]))
    assert float(measured["target_effect"]) > 1e-3
    assert patch.manifest.separable
    assert isinstance(check([Member(patch)]), Accepted)


def test_training_brings_the_guidance_nearer_to_its_target() -> None:
    (patch,) = patches(asked(lr="0.05", steps="40", images="4", rank="8"))
    measured = patch.manifest.measured
    assert float(measured["erase_after"]) < 0.7 * float(measured["erase_before"])
    assert measured["steps"] == "40"
    assert measured["stopped_early"] == "0"


@pytest.mark.parametrize("target", ["none", "alternative", "explicit", "p2p"])
def test_every_target_makes_a_patch_of_its_own(target: str) -> None:
    with untouched():
        (patch,) = patches(asked(target=target))
    assert patch.manifest.eraser.options["target"] == target
    assert float(patch.manifest.measured["target_effect"]) > 0


def test_concepts_of_one_request_leave_each_other_alone() -> None:
    method = quick(AllButOne, tolerance="1e-4", lr="0.5")
    made = patches(request(method, "dog", "van gogh", anchor="cat"))
    verdict = check([Member(patch) for patch in made])
    assert isinstance(verdict, Accepted)
    assert max(r.value for r in verdict.relations if r.check == "pair") < 0.05
    assert made[0].manifest.protected.concepts == ("van gogh",)


# --- The picture side -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["q", "out"])
def pictured(request: pytest.FixtureRequest) -> Patch:
    with untouched():
        return patches(asked(layers=request.param, steps="8", lr="0.05"))[0]


def test_a_picture_side_patch_promises_nothing_and_says_so(pictured: Patch) -> None:
    tensors, manifest = pictured.tensors, pictured.manifest
    assert set(manifest.protected.reads.values()) == {IMAGE}
    assert tensors.protected.shape == (0, 128)
    assert not manifest.separable
    assert find_measured_only(pictured) == tuple(sorted(tensors.increments))
    assert isinstance(check([Member(pictured)]), Accepted)
    assert Patch.from_files(pictured.files()).patch_id == pictured.patch_id


def test_what_a_picture_side_patch_lets_go_is_measured(pictured: Patch) -> None:
    """The null prompt moves, and the number is what the UNet says."""
    measured = pictured.manifest.measured
    assert 1e-6 < float(measured["drift_null"]) < 1
    request = asked(layers=pictured.manifest.eraser.options["layers"])
    own, asking = denoiser(), problem(request)
    method = request.eraser
    assert isinstance(method, AllButOne)

    judged = all_but_one._views(method, asking, own, 0, seed=derive_seed(0, "judged"), count=all_but_one.JUDGED)
    null = base().encoder.encode_all([""]).expand(all_but_one.JUDGED, -1, -1)
    with torch.no_grad(), own.branch(of_patch(pictured, torch.float32)):
        moved = own.predict(judged.z, judged.t, null)
    assert relative(moved, judged.nothing) == pytest.approx(float(measured["drift_null"]), rel=1e-2)


def test_both_factors_are_trained_and_the_bias_is_not_touched(pictured: Patch) -> None:
    for name, increment in pictured.tensors.increments.items():
        assert name.endswith(("attn2.to_q.weight", "attn2.to_out.0.weight"))
        assert float(increment.B.abs().max()) > 0
    assert len({tuple(i.A.flatten()[:4].tolist()) for i in pictured.tensors.increments.values()}) == 4
    assert len({i.rank for i in pictured.tensors.increments.values()}) == 1


def test_a_heavier_multiplier_drifts_less() -> None:
    drifts = [
        float(patches(asked(layers="out", lam=lam, steps="12", lr="0.05"))[0].manifest.measured["drift_null"])
        for lam in ("0", "1000")
    ]
    assert drifts[1] < drifts[0]


def test_stopping_the_gradient_of_the_null_prompt_is_another_run() -> None:
    """With λ = 0 and the gradient flowing, the loss may be lowered by moving the null prompt."""
    flow, stop = (patches(asked(layers="out", lam="0", stop_gradient=which))[0] for which in ("no", "yes"))
    assert bits(flow) != bits(stop)
    same = [patches(asked(layers="kv", stop_gradient=which))[0] for which in ("no", "yes")]
    assert bits(same[0]) == bits(same[1])  # where the null prompt cannot move there is none


# --- Dual ascent ------------------------------------------------------------------------------------------------------


def test_the_multiplier_falls_to_nothing_where_nothing_drifts() -> None:
    (patch,) = patches(asked(lagrangian="dual", slack="1", ascent="10", lam="5"))
    assert float(patch.manifest.measured["multiplier"]) == 0


def test_the_multiplier_grows_by_what_drifts_beyond_the_slack() -> None:
    """λ ← max(0, λ + ρ·(L_unc − ϵ)), from the drift of the very update."""
    method = quick(AllButOne, lagrangian="dual", ascent="100", slack="0", lam="0.5")
    asking = problem(request(method, anchor="cat", layers="out"))
    own = denoiser()
    found = all_but_one._views(method, asking, own, 0, seed=0, count=2)
    factors = all_but_one._factors(method, asking, "dog", None, own.device)
    with torch.no_grad():
        for i, pair in enumerate(factors.values()):
            pair.B.copy_(0.05 * normal(i, *pair.B.shape))
    null = base().encoder.encode_all([""]).float()
    run = all_but_one._Run(found, null, factors, True, torch.tensor([0.5], dtype=torch.float64))  # noqa: FBT003
    chosen = torch.randint(0, 2, (2,), generator=torch.Generator().manual_seed(4))
    erase, drift = all_but_one.compute_losses(method, own, run, found.some(chosen))
    objective = all_but_one.objective(method, own, run, 4)
    assert float(drift.detach()) > 0
    assert float(objective.total.detach()) == pytest.approx(float((erase + 0.5 * drift).detach()), rel=1e-5)
    assert objective.watched == pytest.approx(float(erase.detach()), rel=1e-5)
    assert float(run.multiplier) == pytest.approx(0.5 + 100 * float(drift.detach()), rel=1e-5)
    tight = replace(run, multiplier=torch.tensor([0.5], dtype=torch.float64))
    all_but_one.objective(replace(method, slack=1e6), own, tight, 4)
    assert float(tight.multiplier) == 0


def test_before_training_nothing_drifts() -> None:
    e = normal(1, 2, 4, 4, 4)
    assert float(compute_drift_loss(e, e)) == 0


# --- (12) Which parameters --------------------------------------------------------------------------------------------

WIDTHS = (320,) * 5 + (640,) * 5 + (1280,) * 6  # cross-attention blocks of Stable Diffusion 1.x


def stable_diffusion() -> dict[ParamName, ParameterInfo]:
    found = {}
    for i, width in enumerate(WIDTHS):
        for kind in ("attn1", "attn2"):
            stem = f"unet.blocks.{i}.transformer_blocks.0.{kind}"
            read = 768 if kind == "attn2" else width
            shapes = {"to_q.weight": (width, width), "to_k.weight": (width, read), "to_v.weight": (width, read)}
            shapes |= {"to_out.0.weight": (width, width)}
            for name, shape in shapes.items():
                found[ParamName(f"{stem}.{name}")] = ParameterInfo(ParamName(f"{stem}.{name}"), "F32", shape)
            bias = ParamName(f"{stem}.to_out.0.bias")
            found[bias] = ParameterInfo(bias, "F32", (width,))
    return found


@pytest.mark.parametrize("method", [SepMe(), AllButOne()])
def test_keys_and_values_of_stable_diffusion_are_32_matrices(method: SepMe | AllButOne) -> None:
    infos = stable_diffusion()
    names = method.parameters(infos, "kv", 768)
    assert len(names) == 32
    assert sum(math.prod(infos[name].shape) for name in names) == 19_169_280
    assert sum(infos[name].shape[0] for name in method.parameters(infos, "k", 768)) == 12_480


@pytest.mark.parametrize("layers", ["q", "out"])
def test_queries_and_outputs_of_cross_attention_are_16_matrices(layers: str) -> None:
    infos = stable_diffusion()
    names = AllButOne().parameters(infos, layers, 768)
    assert len(names) == 16
    assert all(".attn2." in name and name.endswith(".weight") and len(infos[name].shape) == 2 for name in names)


def test_layers_that_nobody_knows_and_models_without_them_are_refused() -> None:
    with pytest.raises(InputError, match="expected one of k, v, kv, text, q, out"):
        AllButOne().parameters(stable_diffusion(), "full", 768)
    with pytest.raises(UnsupportedHostError, match=r"attn2\.to_q\.weight"):
        AllButOne().parameters({}, "q", 768)


def test_both_methods_are_in_the_catalogue_and_read_their_own_texts() -> None:
    for name in ("sepme", "all-but-one"):
        made = eraser(name, {"lr": "0.5", "seed": "3"})
        assert with_options(load_method(name), {**encode_options(made), "seed": "3"}) == made
