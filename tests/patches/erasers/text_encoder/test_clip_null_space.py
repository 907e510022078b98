"""Editing a tiny text encoder: what is rewritten, what keeps its values, in which order, and how it is chosen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.values.factories import TinyBase, tiny_request

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace, _chosen
from rasura.patches.erasers.text_encoder.edit import _pairs
from rasura.patches.errors import ErasureRefusedError, InputError, NotFiniteError, UnsupportedHostError
from rasura.patches.format.patch import Patch
from rasura.patches.format.protected_spec import HIDDEN
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.text_encoders.clip_or_t5 import PhrasePosition
from rasura.patches.models.text_encoders.hidden_states import (
    copy_encoder,
    embed_tokens,
    find_fc2_layers,
    injected,
    set_weights,
    states_of,
)
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import ParamName, PatchId

EXACT = ClipNullSpace(ridge=1e-6, energy=1.0, rank_limit=256)
FC2 = [ParamName(f"text_encoder.text_model.encoder.layers.{n}.mlp.fc2.weight") for n in (0, 1)]
RETAINED = RetainSet("retain.txt", ("photo", "tree"))
FINE = RankRule("relative", 1e-9)
"""Holds every direction of the retained prompts, 151 of 256; all but a few of the others are the null prompt's."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.at(tmp_path_factory.mktemp("text encoder") / "model")


def request_for(*concepts: str, **changes: Any) -> EraseRequest:
    plain = {"eraser": EXACT, "layers": "auto", "retain": RETAINED, "held_out": ("house",), "templates": ("a {}",)}
    return tiny_request(*concepts, **{**plain, "rule": RankRule("count", 30), **changes})


def edited(base: TinyBase, *patches: Patch) -> Any:
    """A copy of the encoder that carries these patches."""
    model = copy_encoder(base.encoder.module)
    originals = base.host.originals(FC2)
    for layer, name in enumerate(FC2):
        terms = [p.tensors.increments[name].dense() for p in patches if name in p.tensors.increments]
        set_weights(model, {layer: originals[name].double() + sum(terms, torch.zeros(128, 256, dtype=torch.float64))})
    return model


def moved(base: TinyBase, prompt: str, *patches: Patch) -> float:
    """How far the encoder's output of a prompt is from the pristine one, relative."""
    ids = base.encoder.batch([prompt])
    before = embed_tokens(base.encoder.module, ids)
    return float((embed_tokens(edited(base, *patches), ids) - before).norm() / before.norm())


def distance(base: TinyBase, prompt: str, goal: str, *patches: Patch) -> float:
    """How far a prompt's states, from its second token on, still are from another prompt's: 0 to 1."""
    ids, goals = (base.encoder.batch([text]) for text in (prompt, goal))
    wanted = embed_tokens(base.encoder.module, goals)
    asked = (embed_tokens(base.encoder.module, ids) - wanted).norm()
    return float((embed_tokens(edited(base, *patches), ids) - wanted).norm() / asked)


@pytest.mark.parametrize("layers", ["0", "1", "0,1"])
def test_the_concepts_prompt_becomes_its_anchors(layers: str, base: TinyBase) -> None:
    """Whatever block is edited: what leaves it is the anchor's, so all that follows is."""
    (patch,) = base.build(request_for("dog", layers=layers))
    assert distance(base, "a dog", "a cat", patch) < 2e-3
    assert float(patch.manifest.measured["embedding_residual"]) < 2e-3
    assert float(patch.manifest.measured["residual"]) < 2e-3
    assert sorted(patch.tensors.increments) == [FC2[int(n)] for n in layers.split(",")]


def test_fc2_alone_leaves_what_flows_past_it(base: TinyBase) -> None:
    (patch,) = base.build(request_for("dog", eraser=replace(EXACT, values="mapped"), layers="0"))
    assert float(patch.manifest.measured["residual"]) < 1e-3
    assert 0.05 < distance(base, "a dog", "a cat", patch) < 1


def test_protected_prompts_keep_every_state(base: TinyBase) -> None:
    (patch,) = base.build(request_for("dog", rule=FINE))
    for prompt in ("", "a photo", "a tree"):
        assert moved(base, prompt, patch) < 3e-5
    assert moved(base, "a dog", patch) > 0.1
    assert moved(base, "a house", patch) > 1e-3  # nobody's to keep
    measured = patch.manifest.measured
    assert float(measured["leak_null"]) < 3e-5
    assert float(measured["embedding_retained"]) < 0.1 * float(measured["embedding_held_out"])


def test_start_of_text_is_the_same_in_every_prompt_and_never_touched(base: TinyBase) -> None:
    (patch,) = base.build(request_for("dog"))
    ids = base.encoder.batch(["", "a dog", "any words at all"])
    seen, after = (states_of(model, ids, [0, 1]) for model in (base.encoder.module, edited(base, patch)))
    for layer, name in enumerate(FC2):
        first = seen[layer].keys[:, 0]
        assert torch.allclose(first, first[:1].expand_as(first), atol=1e-5)
        out = patch.tensors.increments[name].dense() @ first[0]
        assert float(out.norm()) < 3e-5
        assert torch.allclose(after[layer].outputs[:, 0], seen[layer].outputs[:, 0], atol=1e-4)


def test_detectors_lie_outside_the_layers_own_rows(base: TinyBase) -> None:
    (patch,) = base.build(request_for("dog"))
    assert dict(patch.manifest.protected.reads) == dict.fromkeys(FC2, HIDDEN)
    rows = [patch.tensors.span_of(name).rows for name in FC2]
    for name, own in zip(FC2, rows, strict=True):
        assert float((own @ patch.tensors.increments[name].A.double().T).abs().max()) < 1e-5
    assert rows[0].shape != rows[1].shape or float((rows[0] @ rows[1].T).abs().max()) < 0.999
    assert len({increment.rank for increment in patch.tensors.increments.values()}) == 1


def test_one_projector_for_all_layers_is_another_thing_and_promises_less(base: TinyBase) -> None:
    (own,) = base.build(request_for("dog", rule=FINE))
    (shared,) = base.build(request_for("dog", rule=FINE, eraser=replace(EXACT, shared_p=True)))
    assert shared.patch_id != own.patch_id
    assert shared.tensors.span_of(FC2[0]).rows.shape[0] == 0
    assert shared.tensors.span_of(FC2[1]).rows.shape[0] > 77
    assert moved(base, "a photo", shared) > 10 * moved(base, "a photo", own)


def test_concepts_of_one_request_are_separable(base: TinyBase) -> None:
    """Either patch does to its own prompts what it does, whether the other is there or not; so in both layers."""
    options = replace(EXACT, ridge=0.1)
    dog, gogh = base.build(request_for("dog", "van gogh", eraser=options, rule=RankRule("count", 1)))
    for prompt, own in (("a dog", dog), ("a van gogh", gogh)):
        alone, together = distance(base, prompt, "a cat", own), distance(base, prompt, "a cat", dog, gogh)
        assert float(own.manifest.measured["embedding_residual"]) < 0.5
        assert abs(together - alone) < 5e-3
    assert moved(base, "a van gogh", dog) < 2e-2 * moved(base, "a van gogh", gogh)
    assert moved(base, "a dog", gogh) < 2e-2 * moved(base, "a dog", dog)
    assert int(dog.manifest.measured["guarded"]) > 0


@pytest.mark.parametrize(("guard", "most"), [("span", 1e-2), ("soft", 0.5)])
def test_prompts_of_registered_patches(guard: str, most: float, base: TinyBase) -> None:
    guarded = {PatchId("0" * 64): ("a van gogh",)}
    options = replace(EXACT, guard=guard, ridge=1e-2)
    (bare,) = base.build(request_for("dog", eraser=options))
    (patch,) = base.build(request_for("dog", eraser=options, guarded_prompts=guarded))
    left = moved(base, "a van gogh", patch) / moved(base, "a van gogh", bare)
    assert left < most
    assert (left < 1e-2) == (guard == "span")
    assert distance(base, "a dog", "a cat", patch) < 0.2


def test_positions(base: TinyBase) -> None:
    """All of them by default; else those that the request names."""
    (last,) = base.build(request_for("dog", eraser=replace(EXACT, positions="tokens"), tokens="last"))
    (whole,) = base.build(request_for("dog"))
    ids = base.encoder.batch(["a dog"])
    goal = embed_tokens(base.encoder.module, base.encoder.batch(["a cat"]))[0]
    for patch, reached, beyond in ((last, True, False), (whole, True, True)):
        off = (embed_tokens(edited(base, patch), ids)[0] - goal).norm(dim=1)
        assert bool(off[2] < 0.05) == reached
        assert bool(off[10] < 0.05) == beyond
    assert last.tensors.pairs_of(FC2[0]).targets.shape[0] == 1


@pytest.mark.parametrize(
    ("source", "goal"), [(range(2, 4), range(2, 3)), (range(2, 3), range(2, 5)), (range(1, 2), range(1, 2))]
)
def test_all_positions_are_paired_once(source: range, goal: range) -> None:
    pairs = _pairs(PhrasePosition(source, source[0], 77), PhrasePosition(goal, goal[0], 77), "all")
    assert [a for a, _ in pairs] == list(range(77))
    assert dict(pairs)[source[-1]] == goal[-1]
    assert all(0 <= b < 77 for _, b in pairs)
    assert all(a == b for a, b in pairs if a < source[0])


def test_lambda_itself(base: TinyBase) -> None:
    (hard,) = base.build(request_for("dog", eraser=replace(EXACT, lam=1e-9)))
    (soft,) = base.build(request_for("dog", eraser=replace(EXACT, lam=1e3)))
    assert float(hard.manifest.measured["embedding_residual"]) < 1e-2
    assert float(soft.manifest.measured["embedding_residual"]) > 0.9
    with pytest.raises(ErasureRefusedError, match="with these choices changes nothing"):
        base.build(request_for("dog", eraser=replace(EXACT, lam=1e9)))


def test_the_papers_policy_leaves_little_free(base: TinyBase) -> None:
    (patch,) = base.build(request_for("dog", eraser=replace(EXACT, policy="paper")))
    rows = patch.tensors.span_of(FC2[0]).rows.shape[0]
    assert rows == 256 - 8 or rows < 256 - 8
    assert patch.manifest.protected.basis.rule.startswith("count:")


def test_a_concept_that_is_retained_by_another_name_is_refused(base: TinyBase) -> None:
    """Everything that is asked for is protected: there is a command that says what to do."""
    guarded = {PatchId("0" * 64): ("a dog",)}
    with pytest.raises(ErasureRefusedError, match="'dog' lies inside the protected set of layer 0") as caught:
        base.build(request_for("dog", eraser=replace(EXACT, guard_share=1.0), guarded_prompts=guarded))
    assert "--method clip-null-space --rank-rule count:15" in caught.value.hint


def guided(base: TinyBase, folder: Path, **options: Any) -> Patch:
    method = replace(EXACT, ridge=1e-2, values="guided", epochs=2, steps=4, batch=2, draw_steps=2, **options)
    (patch,) = build_patches(
        base.host,
        base.encoder,
        base.identity,
        request_for("dog", eraser=method),
        lambda *_: None,
        denoiser=lambda: Denoiser.load(base.host, folder),
    )
    return patch


@pytest.fixture
def folder(base: TinyBase) -> Path:
    return Path(base.host.location)


def test_guidance_lowers_its_loss_and_keeps_promises(base: TinyBase, folder: Path) -> None:
    patch = guided(base, folder, lr=0.02, t_low=600, t_high=900)
    measured = {name: float(number) for name, number in patch.manifest.measured.items()}
    assert measured["loss_after"] < 0.8 * measured["loss_before"]
    assert moved(base, "", patch) < 1e-4
    assert moved(base, "a photo", patch) < 0.3 * moved(base, "a dog", patch)
    assert patch.manifest.eraser.seed == 0


def test_guided_concepts_of_one_request_leave_each_other_alone(base: TinyBase, folder: Path) -> None:
    method = replace(EXACT, ridge=0.1, values="guided", epochs=2, steps=2, batch=2, draw_steps=2, lr=0.02)
    request = request_for("dog", "van gogh", eraser=method, rule=RankRule("count", 1))
    patches = build_patches(
        base.host,
        base.encoder,
        base.identity,
        request,
        lambda *_: None,
        denoiser=lambda: Denoiser.load(base.host, folder),
    )
    dog, gogh = patches
    for prompt, own, other in (("a dog", dog, gogh), ("a van gogh", gogh, dog)):
        assert moved(base, prompt, other) < 3e-2 * moved(base, prompt, own)
    assert all(set(patch.manifest.measured) > {"loss_before", "loss_after"} for patch in patches)


def test_guidance_gives_the_same_for_the_same_seed(base: TinyBase, folder: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.encoder.module.state_dict().items()}
    first, again, other = (guided(base, folder, seed=seed) for seed in (3, 3, 4))
    assert first.patch_id == again.patch_id != other.patch_id
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.encoder.module.state_dict().items())


def test_a_loss_that_is_not_finite(base: TinyBase, folder: Path) -> None:
    with pytest.raises(NotFiniteError):
        guided(base, folder, lr=1e30)


def test_without_a_unet_guidance_is_refused(base: TinyBase) -> None:
    with pytest.raises(UnsupportedHostError, match="looks through the UNet"):
        base.build(request_for("dog", eraser=replace(EXACT, values="guided")))


def test_which_layers(base: TinyBase) -> None:
    infos = base.host.parameters()
    method = ClipNullSpace()
    assert method.parameters(infos, "auto", 128) == FC2
    assert method.parameters(infos, "1", 128) == FC2[1:]
    assert _chosen("auto", range(12), "x") == [1, 2, 3]
    assert _chosen("auto", range(3), "x") == [0, 1, 2]
    assert _chosen("5,2", range(12), "x") == [2, 5]
    for odd in ("", "2", "0,0", "-1", "kv", "0;1", "٣"):
        with pytest.raises(InputError, match="expected auto, or numbers among 0, 1"):
            method.parameters(infos, odd, 128)
    with pytest.raises(UnsupportedHostError, match="no CLIP text encoder"):
        method.parameters({n: i for n, i in infos.items() if n.startswith("unet.")}, "auto", 128)
    wrong = {FC2[0]: ParameterInfo(FC2[0], "F32", (64, 256))}
    with pytest.raises(UnsupportedHostError, match="expected 128 outputs, got 64"):
        method.parameters(wrong, "auto", 128)


@pytest.mark.parametrize(
    "settings",
    [{"values": "guess"}, {"shared_p": "maybe"}, {"t_low": "60"}, {"ridge": "-1"}, {"batch": "0"}, {"guard": "0.5"}],
)
def test_choices_out_of_range(settings: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        eraser("clip-null-space", settings)
    assert caught.value.hint == "rasura methods clip-null-space"


def test_values_are_injected_for_the_length_of_a_block(base: TinyBase) -> None:
    model, ids = copy_encoder(base.encoder.module), base.encoder.batch(["a dog"])
    seen = states_of(model, ids, [1])[1]
    values = torch.zeros(1, 77, 128)
    with injected(model, 1, values):
        inside = states_of(model, ids, [1])[1]
    bias = model.encoder.layers[1].mlp.fc2.bias.double() if hasattr(model, "encoder") else 0
    weight = base.host.originals([FC2[1]])[FC2[1]].double()
    assert torch.allclose(seen.outputs - inside.outputs, seen.keys @ weight.T, atol=1e-5)
    assert torch.equal(states_of(model, ids, [1])[1].outputs, seen.outputs)
    assert bias is not None


def test_names_of_layers_are_read_from_the_first_encoder_alone() -> None:
    other = ParamName(FC2[0].replace("text_encoder", "text_encoder_2", 1))
    names = [FC2[1], other, ParamName(FC2[0].replace("fc2", "fc1")), FC2[0]]
    assert find_fc2_layers(names) == {0: FC2[0], 1: FC2[1]}
