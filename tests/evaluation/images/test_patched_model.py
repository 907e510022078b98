# ruff: noqa: F811 - a test asks for a fixture by its name
"""The patched model in memory is the one that a host would hold, and the base is the base whatever is applied."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models.tiny import TinySpec, tiny_model
from support.registries.workshop import ALICE, SPEC, Workshop, workshop  # noqa: F401

from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel, check_drawable, identify_model
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import BaseMismatchError, InputError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.types import Digest, ParamName, PatchId
from rasura.registry.apply import operations
from rasura.registry.trust.verified_patch import load_verified


def stack(shop: Workshop, patches: Mapping[PatchId, int]) -> list[EvaluatedPatch]:
    with shop.open() as registry:
        return [EvaluatedPatch(load_verified(registry, p), Strength(s)) for p, s in patches.items()]


def model(shop: Workshop, patches: Mapping[PatchId, int]) -> PatchedModel:
    host = shop.host()
    identity = identify(host, TextEncoder.load(host.folder).tokenizer_state())
    return PatchedModel.load(host, identity, stack(shop, patches), Sampling(steps=2))


def weights(pipeline: object) -> dict[str, torch.Tensor]:
    modules = {name: getattr(pipeline, name) for name in ("unet", "text_encoder", "vae")}
    return {f"{name}.{k}": v.clone() for name, m in modules.items() for k, v in m.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_patched_weights_are_those_of_the_folder_after_applying(workshop: Workshop) -> None:
    base = weights(Painter.load(workshop.model).pipeline)
    patched = model(workshop, {workshop.dog: 16, workshop.photo: -8})
    assert same(weights(patched.painter.pipeline), base)
    patched.show(patched=True)
    seen = weights(patched.painter.pipeline)
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE, strength=Strength(-8))
    assert not same(seen, base)
    assert same(seen, weights(Painter.load(workshop.model).pipeline))
    patched.show(patched=False)
    assert same(weights(patched.painter.pipeline), base)


def test_a_folder_with_patches_applied_is_evaluated_as_its_base(workshop: Workshop) -> None:
    base = weights(Painter.load(workshop.model).pipeline)
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)
    before = workshop.digests()
    patched = model(workshop, {workshop.dog: 16})
    assert same(weights(patched.painter.pipeline), base)
    patched.show(patched=True)
    patched.show(patched=False)
    assert same(weights(patched.painter.pipeline), base)
    assert workshop.digests() == before


def test_the_fingerprint_names_base_set_and_strengths(workshop: Workshop) -> None:
    one, two = model(workshop, {workshop.dog: 16}), model(workshop, {workshop.dog: 8})
    assert one.show(patched=False) == two.show(patched=False)
    assert len({one.show(patched=False), one.show(patched=True), two.show(patched=True)}) == 3
    a, b = PatchId("a" * 64), PatchId("b" * 64)
    base, fixed = Digest("0" * 64), Digest("1" * 64)
    assert identify_model(base, fixed, {a: 1, b: 2}) == identify_model(base, fixed, {b: 2, a: 1})
    assert identify_model(base, fixed, {a: 1}) != identify_model(base, Digest("2" * 64), {a: 1})


def test_the_fingerprint_sees_another_vae(workshop: Workshop) -> None:
    before = model(workshop, {workshop.dog: 16}).fingerprints
    path = workshop.model / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert not set(before) & set(model(workshop, {workshop.dog: 16}).fingerprints)


def test_a_patch_may_touch_the_text_encoder(workshop: Workshop) -> None:
    """Whichever of CLIP's two spellings the loaded module uses, the increment finds its parameter."""
    member = stack(workshop, {workshop.dog: 16})[0]
    name = ParamName("text_encoder.text_model.encoder.layers.1.mlp.fc1.weight")
    out, width = workshop.host().parameters()[name].shape
    increment = Increment(torch.full((1, width), 2.0**-5), torch.full((out, 1), 0.25))
    tensors = replace(member.patch.tensors, increments={**member.patch.tensors.increments, name: increment})
    odd = EvaluatedPatch(replace(member.patch, arrays=tensors.arrays), Strength())
    prints = Digest("0" * 64), Digest("1" * 64)
    patched = PatchedModel(Painter.load(workshop.model, Sampling(steps=1)), workshop.host(), [odd], prints)
    encoder = patched.painter.pipeline.text_encoder
    (live,) = [p for key, p in encoder.named_parameters() if key.endswith("layers.1.mlp.fc1.weight")]
    base = live.detach().clone()
    shot = [Shot("a dog", 1)]
    before = patched.painter.draw_batch(shot)[0].tobytes()
    patched.show(patched=True)
    torch.testing.assert_close(live.detach(), (base + 2.0**-7).half().float())
    assert patched.painter.draw_batch(shot)[0].tobytes() != before
    patched.show(patched=False)
    assert torch.equal(live.detach(), base)
    assert patched.painter.draw_batch(shot)[0].tobytes() == before


def test_patches_of_another_base_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    other = CheckpointHost.open(tiny_model(tmp_path / "other", TinySpec(SPEC.dtype, SPEC.size, seed=9)))
    identity = identify(other, TextEncoder.load(other.folder).tokenizer_state())
    with pytest.raises(BaseMismatchError):
        check_drawable(other, identity, stack(workshop, {workshop.dog: 16}))
    smaller = CheckpointHost.open(tiny_model(tmp_path / "smaller", TinySpec(SPEC.dtype)))
    with pytest.raises(BaseMismatchError):
        check_drawable(smaller, identity, stack(workshop, {workshop.dog: 16}))


def test_the_same_denoiser_with_another_text_encoder_is_another_base(workshop: Workshop) -> None:
    path = workshop.model / "text_encoder" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    host = workshop.host()
    identity = identify(host, TextEncoder.load(host.folder).tokenizer_state())
    with pytest.raises(BaseMismatchError, match="text encoder"):
        check_drawable(host, identity, stack(workshop, {workshop.dog: 16}))


def test_no_patch_is_no_evaluation(workshop: Workshop) -> None:
    host = workshop.host()
    with pytest.raises(InputError, match="no patch"):
        check_drawable(host, identify(host, TextEncoder.load(host.folder).tokenizer_state()), [])
