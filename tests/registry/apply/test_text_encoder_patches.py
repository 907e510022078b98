"""Patches of the text encoder are patches: on disk, live, beside others, and back to the last bit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Workshop, copy_of, request_for, silent, workshop_template

from rasura.patches._io.safetensors_file import encode
from rasura.patches.checks.check import DEFAULT_POLICY, Accepted, Member, Policy, check, find_measured_only
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.errors import BaseMismatchError, CheckRefusedError, FormatError
from rasura.patches.format.patch import WEIGHTS, Patch
from rasura.patches.format.protected_spec import HIDDEN
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.types import ParamName, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.status import survey
from rasura.registry.erase.base_models import add_base, open_base
from rasura.registry.erase.erase import erase
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key
from rasura.registry.trust.verified_patch import load_verified

ADD = Draft("alice", "", "base.add", "success")
FC2 = [ParamName(f"text_encoder.text_model.encoder.layers.{n}.mlp.fc2.weight") for n in (0, 1)]
PROMPT = "a painting"
UNTRAINED = Policy(pair=1e9, stack=1e9, site=1e9)
"""An encoder of random weights turns every prompt when one is erased: what that does to others is not asked here."""


def erased(registry: Registry, concept: str, *, protect: tuple[PatchId, ...] = (), base: str = "tiny") -> PatchId:
    request = replace(request_for(Target(concept, "a")), eraser=ClipNullSpace(), layers="auto")
    draft = Draft("alice", "", "patch.erase", "success")
    (made,) = erase(registry, base, request, key=None, protect=protect, draft=draft, progress=silent)
    return made.patch.patch_id


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, PatchId]:
    """A workshop that also has a patch which erases "painting" from the text encoder; nobody writes to it."""
    made = copy_of(workshop_template(), tmp_path_factory.mktemp("text encoder") / "workshop")
    with made.open() as registry:
        registry.set_policy(UNTRAINED, Draft("alice", "", "policy.set", "success"))
        return made, erased(registry, "painting", protect=(made.dog,))


@pytest.fixture
def workshop(prepared: tuple[Workshop, PatchId], tmp_path: Path) -> Workshop:
    return copy_of(prepared[0], tmp_path / "ä b%20c %s 猫")


@pytest.fixture
def painting(prepared: tuple[Workshop, PatchId]) -> PatchId:
    return prepared[1]


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def states(encoder: TextEncoder, prompt: str = PROMPT) -> torch.Tensor:
    return encoder.encode_all([prompt])[0]


def noise(pipeline: object) -> torch.Tensor:
    """What the UNet predicts for one latent under the prompt."""
    live: Any = pipeline
    embedding = live.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        found: torch.Tensor = live.unet(torch.ones(1, 4, 16, 16).to(embedding), 500, encoder_hidden_states=embedding)[0]
    return found


def test_the_files_hold_each_layers_own_rows_and_targets(registry: Registry, painting: PatchId) -> None:
    patch = load_verified(registry, painting)
    assert sorted(patch.tensors.increments) == FC2
    assert dict(patch.manifest.protected.reads) == dict.fromkeys(FC2, HIDDEN)
    assert patch.manifest.to_bytes().find(b'"rasura-patch/2"') > 0
    for name in FC2:
        assert patch.tensors.span_of(name).rows.shape[1] == patch.tensors.increments[name].shape[1] == 256
        assert patch.tensors.pairs_of(name).targets.shape[1] == 256
    assert patch.tensors.protected.shape == (0, 128)
    spelled = {
        f"{name.removesuffix('.weight')}.lora_linear_layer.{part}.weight" for name in FC2 for part in ("down", "up")
    }
    assert set(patch.arrays.by_file()[WEIGHTS]) == spelled
    again = Patch.from_files(patch.files())
    assert again.patch_id == painting
    assert again.files() == patch.files()


def test_a_check_beside_patches_of_cross_attention(workshop: Workshop, registry: Registry, painting: PatchId) -> None:
    stack = [Member(load_verified(registry, patch_id)) for patch_id in (workshop.van_gogh, painting, workshop.dog)]
    verdict = check(stack)
    assert isinstance(verdict, Accepted)
    own = next(r for r in verdict.relations if r.check == "own" and r.patch == painting)
    assert 0 < own.value < 1e-4
    assert find_measured_only(stack[1].patch) == ()
    compared = {(r.patch, r.other) for r in verdict.relations if r.check == "pair"}
    assert compared == {(workshop.dog, workshop.van_gogh), (workshop.van_gogh, workshop.dog)}  # one kind of input


def test_the_check_sees_a_promise_broken_inside_the_encoder(registry: Registry, painting: PatchId) -> None:
    patch = load_verified(registry, painting)
    name = FC2[0]
    spans = dict(patch.tensors.spans)
    direction = patch.tensors.increments[name].A[:1].double()
    rows = direction / direction.norm()
    spans[name] = replace(spans[name], rows=rows, energy=torch.ones(1, dtype=torch.float64))
    broken = Patch(patch.manifest, replace(patch.tensors, spans=spans).arrays)
    assert not isinstance(check([Member(broken)]), Accepted)


@pytest.mark.parametrize("long", [False, True])
def test_a_folder_is_patched_and_comes_back_byte_for_byte(
    long: bool, workshop: Workshop, registry: Registry, painting: PatchId
) -> None:
    file = workshop.model / "text_encoder" / "model.safetensors"
    stored = {name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}
    save_file({("text_model." if long else "") + name: t for name, t in stored.items()}, file, {"format": "pt"})
    first, before = workshop.digests(), states(TextEncoder.load(workshop.model))
    receipt = operations.apply(registry, workshop.host(), [painting], ALICE)
    assert receipt.parameters == 2
    changed = {name for name, digest in workshop.digests().items() if first.get(name) not in {digest, "folder"}}
    assert {name for name in changed if not name.startswith(".rasura-host")} == {"text_encoder/model.safetensors"}
    assert float((states(TextEncoder.load(workshop.model)) - before).norm() / before.norm()) > 0.1
    assert survey(registry, workshop.host(), deep=True, progress=silent).drifted == ()
    assert operations.revert(registry, workshop.host(), None, ALICE).pristine
    assert workshop.digests() == first


@pytest.mark.parametrize("first", [True, False])
def test_order_with_a_patch_of_cross_attention(
    first: bool, workshop: Workshop, registry: Registry, painting: PatchId
) -> None:
    """A host that carries our text-encoder patch is still the base of a cross-attention patch, and the other way round."""
    before = workshop.digests()
    order = (painting, workshop.van_gogh) if first else (workshop.van_gogh, painting)
    for patch_id in order:
        operations.apply(registry, workshop.host(), [patch_id], ALICE)
    assert survey(registry, workshop.host(), deep=True, progress=silent).drifted == ()
    operations.revert(registry, workshop.host(), [order[0]], ALICE)
    operations.revert(registry, workshop.host(), [order[1]], ALICE)
    assert workshop.digests() == before


def test_a_stack_of_both_sites_is_checked_behind_the_encoder(
    workshop: Workshop, registry: Registry, painting: PatchId
) -> None:
    registry.set_policy(DEFAULT_POLICY, Draft("alice", "", "policy.set", "success"))
    operations.apply(registry, workshop.host(), [painting], ALICE)
    with (
        workshop.unchanged("refused check_refused"),
        pytest.raises(CheckRefusedError, match="behind the patched text encoder"),
    ):
        operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)


def test_a_strange_text_encoder_stays_refused_under_our_patch(
    workshop: Workshop, registry: Registry, painting: PatchId
) -> None:
    operations.apply(registry, workshop.host(), [painting], ALICE)
    host = workshop.host()
    name = ParamName("text_encoder.text_model.final_layer_norm.weight")
    file = workshop.model / "text_encoder" / "model.safetensors"
    key = "final_layer_norm.weight" if "final_layer_norm.weight" in load_file(file) else name.split(".", 1)[1]
    tensors = load_file(file)
    save_file({**tensors, key: tensors[key] * 2}, file, {"format": "pt"})
    assert name in host.parameters()
    with pytest.raises(BaseMismatchError, match="final_layer_norm"):
        operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_live_pipeline(dtype: str, workshop: Workshop, registry: Registry, painting: PatchId) -> None:
    pipeline = tiny_pipeline(SPEC).to(getattr(torch, dtype))
    host, before = TorchHost.of(pipeline, "live"), noise(pipeline)
    kept = {name: tensor.clone() for name, tensor in pipeline.text_encoder.state_dict().items()}
    receipt = operations.apply(registry, host, [painting, workshop.van_gogh], ALICE)
    assert float((noise(pipeline) - before).abs().max()) > 1e-3
    assert survey(registry, host, deep=True, progress=silent).drifted == ()
    if dtype == "float16":
        on_disk = operations.apply(registry, workshop.host(), [workshop.van_gogh, painting], ALICE)
        assert receipt.after == on_disk.after
    operations.revert(registry, host, [painting], ALICE)
    operations.revert(registry, host, [workshop.van_gogh], ALICE)
    for name, tensor in pipeline.text_encoder.state_dict().items():
        assert torch.equal(tensor, kept[name])
    assert torch.equal(noise(pipeline), before)


def test_a_base_opened_under_a_patched_text_encoder_is_pristine(
    workshop: Workshop, registry: Registry, painting: PatchId
) -> None:
    """The folder's files hold the patched weights; the next erasure must see the ones of the base."""
    folder = str(workshop.model)
    before = states(open_base(registry, folder, ADD, silent).encoder)
    patch = load_verified(registry, painting)
    operations.apply(registry, workshop.host(), [painting], ALICE)
    assert float((states(TextEncoder.load(workshop.model)) - before).norm()) > 1
    opened = open_base(registry, folder, ADD, silent)
    assert opened.record.name == "tiny"
    assert torch.equal(states(opened.encoder), before)
    again = erased(registry, "painting", protect=(workshop.dog,), base=folder)
    assert again == patch.patch_id


def test_a_base_registered_before_its_text_encoder_could_be_patched(workshop: Workshop, tmp_path: Path) -> None:
    """Such a record knows no casts of the text encoder; a host in another dtype is recognised by its values."""
    with workshop.open() as registry:
        record = add_base(registry, workshop.model, None, ADD, silent)[0].record
    older = tuple(replace(p, casts=p.casts if p.name.startswith("unet.") else {}) for p in record.parameters)
    with Registry.create(tmp_path / "older", actor="alice") as registry:
        make_key(registry, "alice", Draft("alice", "", "key.add", "success"))
        registry.add_base(replace(record, parameters=older), ADD)
        patch_id = erased(registry, "painting")
        pipeline = tiny_pipeline(SPEC).to(torch.float32)
        host = TorchHost.of(pipeline, "live")
        before = host.digests(FC2)
        operations.apply(registry, host, [patch_id], ALICE)
        assert host.digests(FC2) != before
        assert survey(registry, host, deep=True, progress=silent).drifted == ()
        operations.revert(registry, host, None, ALICE)
        assert host.digests(FC2) == before


def test_another_text_encoder_is_another_base(registry: Registry, painting: PatchId) -> None:
    host = TorchHost.of(tiny_pipeline(replace(SPEC, seed=1)), "another")
    with pytest.raises(BaseMismatchError, match="text_encoder"):
        operations.apply(registry, host, [painting], ALICE)


def test_one_spelling_of_a_text_encoders_factors(registry: Registry, painting: PatchId) -> None:
    patch = load_verified(registry, painting)
    factors = {
        key.replace("lora_linear_layer.down", "lora_A").replace("lora_linear_layer.up", "lora_B"): tensor
        for key, tensor in patch.arrays.by_file()[WEIGHTS].items()
    }
    with pytest.raises(FormatError, match="expected pairs of factors and nothing else"):
        Patch.from_files({**patch.files(), WEIGHTS: encode(factors, {"format": "pt"})})
