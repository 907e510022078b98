"""From words to patches on a real, tiny model: what comes out, twice the same, and what is refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import TinySpec, tiny_model
from support.values import factories
from support.values.factories import TinyBase, tiny_request

from rasura.patches.algebra.compose import Term, compose
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.check import Accepted, Refused, check, require
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import (
    ConceptError,
    ErasureRefusedError,
    InputError,
    NotFiniteError,
    RasuraError,
    UnsupportedHostError,
)
from rasura.patches.format.member import Member
from rasura.patches.format.patch import BASIS, Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import check_touched
from rasura.patches.prompts.concept_prompts import GENERIC_TEMPLATES, Target, align_columns
from rasura.patches.prompts.nearest_concepts import find_nearest_protected
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.solve import _Prompts, build_patches
from rasura.patches.types import PatchId

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.at(tmp_path_factory.mktemp("request") / "model")


@pytest.fixture(scope="module")
def patches(tiny: TinyBase) -> tuple[Patch, ...]:
    return tiny.build(tiny_request("dog", "van gogh", licence="MIT"))


# --- What comes out ---------------------------------------------------------------------------------------------------


def test_patches_say_what_was_asked(tiny: TinyBase, patches: tuple[Patch, ...]) -> None:
    dog, gogh = (patch.manifest for patch in patches)
    assert (dog.concept.text, dog.concept.anchor, dog.concept.tokens) == ("dog", "cat", "last")
    assert dog.concept.templates == ("a photo of a {}", "{}")
    assert (dog.protected.concepts, gogh.protected.concepts) == (("van gogh",), ("dog",))
    assert dog.protected.retain is not None
    assert (dog.protected.retain.source, dog.protected.retain.count) == ("retain.txt", 3)
    assert dog.protected.basis == gogh.protected.basis
    assert dog.protected.basis.sha256 == hashlib.sha256(patches[0].files()[BASIS]).hexdigest()
    assert dog.eraser.options["layers"] == "kv"
    assert dog.licence == "MIT"
    assert dog.base.sha256 == tiny.identity.digest
    assert dog.base.text_encoder == tiny.identity.text_encoder
    assert len(dog.base.parameters) == len(patches[0].tensors.increments) == 8
    check_touched(dog.base.parameters, tiny.host.originals(p.name for p in dog.base.parameters), "here")


def test_patches_read_back_and_are_accepted_together(patches: tuple[Patch, ...]) -> None:
    for patch in patches:
        assert Patch.from_files(patch.files()).patch_id == patch.patch_id
    assert isinstance(check([Member(patch) for patch in patches]), Accepted)


def test_the_concept_becomes_its_anchor_and_the_null_prompt_stays(tiny: TinyBase, patches: tuple[Patch, ...]) -> None:
    """On the composed weights themselves, float32, all rounding included."""
    patch = patches[0]
    C1, C_star = align_columns(tiny.encoder, Target("dog", "cat"), patch.manifest.concept.templates, "last")
    null = tiny.encoder.encode_all([""])[0].T
    pristine = tiny.host.originals(patch.tensors.increments)
    for name, increment in patch.tensors.increments.items():
        W, edited = pristine[name].double(), compose(pristine[name], [Term(increment)]).double()
        assert float((edited @ C1 - W @ C_star).norm() / (W @ C1 - W @ C_star).norm()) < 0.01
        assert float((edited @ null - W @ null).norm() / (W @ null).norm()) < 1e-5


def test_stored_targets_stand_for_the_concepts_columns(tiny: TinyBase, patches: tuple[Patch, ...]) -> None:
    """‖X·C1 − Y·C*‖ is the same for the few stored rows as for all columns."""
    C1, C_star = align_columns(tiny.encoder, Target("dog", "cat"), patches[0].manifest.concept.templates, "last")
    X, Y = factories.normal(1, 9, 128), factories.normal(2, 9, 128)
    tensors = patches[0].tensors
    stored = (X @ tensors.targets.T - Y @ tensors.anchors.T).norm()
    assert float(stored) == pytest.approx(float((X @ C1 - Y @ C_star).norm()), rel=1e-6)
    assert tensors.targets.shape == (2, 128)


def test_progress_is_told_to_its_end(tiny: TinyBase) -> None:
    told: list[tuple[str, int, int]] = []
    build_patches(tiny.host, tiny.encoder, tiny.identity, tiny_request(), lambda *step: told.append(step))
    stages = dict.fromkeys(stage for stage, _, _ in told)
    assert list(stages) == ["encoding retained prompts", "encoding held-out prompts", "solving"]
    for stage in stages:
        *_, (_, done, whole) = (step for step in told if step[0] == stage)
        assert done == whole > 0


@pytest.mark.parametrize("layers", ["k", "v"])
def test_layers_are_a_choice(tiny: TinyBase, layers: str) -> None:
    (patch,) = tiny.build(tiny_request(layers=layers))
    assert len(patch.tensors.increments) == 4
    assert all(name.endswith(f".to_{layers}.weight") for name in patch.tensors.increments)


def test_held_out_words_that_are_retained_or_erased_are_not_held_out(tiny: TinyBase) -> None:
    (one,) = tiny.build(tiny_request(held_out=("river",)))
    (other,) = tiny.build(tiny_request(held_out=("river", " DOG", "Tree", "house")))
    assert one.patch_id == other.patch_id


def test_without_a_retain_set_the_null_prompt_is_protected(tiny: TinyBase) -> None:
    (patch,) = tiny.build(tiny_request(retain=None))
    assert patch.manifest.protected.retain is None
    assert patch.manifest.protected.basis.rank == patch.manifest.protected.basis.invariants == 77
    assert float(patch.manifest.measured["leak_null"]) < 1e-5
    own = next(r for r in require(check([Member(patch)])).relations if r.check == "own")
    assert 0 < own.value < 1e-5  # a promise that is weighed, not one of nothing
    careless = replace(patch.tensors, protected=patch.tensors.protected.flip(1))
    assert isinstance(check([Member(replace(patch, arrays=careless.arrays))]), Refused)


# --- Twice the same ---------------------------------------------------------------------------------------------------


def test_the_same_request_gives_the_same_bytes_whatever_happened_before(
    tiny: TinyBase, patches: tuple[Patch, ...]
) -> None:
    """Other prompts in other batches, another seed, another request, another copy of the model's objects."""
    torch.manual_seed(12345)
    tiny.encoder.encode_all(["river"] * 67)
    tiny.build(tiny_request("gogh"))
    fresh = TinyBase(CheckpointHost.open(tiny.host.folder), tiny.encoder, tiny.identity)
    again = fresh.build(tiny_request("dog", "van gogh", licence="MIT"))
    for one, other in zip(patches, again, strict=True):
        assert one.patch_id == other.patch_id
        assert one.files() == other.files()


SCRIPT = """
import json, sys
from pathlib import Path
from support.values.factories import TinyBase, tiny_request
made = TinyBase.open(Path(sys.argv[1])).build(tiny_request("dog", "van gogh", licence="MIT"))
import hashlib
print(json.dumps([{n: hashlib.sha256(d).hexdigest() for n, d in p.files().items()} for p in made]))
"""


def test_the_same_request_gives_the_same_bytes_in_another_process_and_place(
    tiny: TinyBase, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(tiny.host.folder, tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(elsewhere)],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [{name: hashlib.sha256(data).hexdigest() for name, data in p.files().items()} for p in patches]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


CHANGES: dict[str, dict[str, Any]] = {
    "another anchor": {"targets": (Target("dog", "photo"), Target("van gogh", "cat"))},
    "another retain set": {"retain": RetainSet("retain.txt", ("photo", "tree"))},
    "a renamed retain file": {"retain": RetainSet("other.txt", ("photo", "tree", "house"))},
    "another template": {"templates": ("{}",)},
    "other tokens": {"tokens": "subject"},
    "another rule": {"rule": RankRule("relative", 0.02)},
    "other options": {"eraser": NullSpace(ridge=1e-4, energy=0.999)},
    "another licence": {"licence": "Apache-2.0"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_request_gives_another_identity(tiny: TinyBase, patches: tuple[Patch, ...], change: str) -> None:
    other = tiny.build(tiny_request("dog", "van gogh", **{"licence": "MIT"} | CHANGES[change]))
    assert other[0].patch_id != patches[0].patch_id


# --- Refused by the mathematics ---------------------------------------------------------------------------------------


def test_a_retained_target_is_refused_with_the_number_and_the_nearest(tiny: TinyBase) -> None:
    retain = RetainSet("retain.txt", ("photo", "a dog", "tree", "house"))
    with pytest.raises(ErasureRefusedError, match="lies inside the protected set") as caught:
        tiny.build(tiny_request(retain=retain, templates=("{}",), rule=RankRule("relative", 1e-9)))
    error = caught.value
    assert error.exit_code == 3
    nearest = error.details["nearest"]
    assert isinstance(nearest, list)
    assert len(nearest) == 3
    assert "the nearest that is protected: a dog (" in error.message
    assert next(near["name"] for near in nearest) == "a dog"
    cosines = [float(near["cosine"]) for near in nearest]
    assert cosines == sorted(cosines, reverse=True)
    assert float(str(error.details["free"])) < 1e-3
    assert error.hint == "rasura erase --base MODEL --concept dog --retain FILE --rank-rule relative:1e-08"


def test_concepts_that_leave_no_room_for_each_other_are_refused_and_named(tiny: TinyBase) -> None:
    """All tokens of eight templates, in the few dimensions that this model has left."""
    with pytest.raises(ErasureRefusedError, match="span of the other concepts") as caught:
        tiny.build(tiny_request("dog", "van gogh", templates=GENERIC_TEMPLATES, tokens="tail"))
    assert "van gogh (" in caught.value.message


def test_a_guarded_concept_is_refused_and_its_patch_named(tiny: TinyBase, patches: tuple[Patch, ...]) -> None:
    guarded = {patches[0].patch_id: patches[0].tensors.targets}
    with pytest.raises(ErasureRefusedError) as caught:
        tiny.build(tiny_request("dog", guarded=guarded))
    assert f"patch {patches[0].patch_id[:12]} (1.00)" in caught.value.message


def test_guarded_patches_are_protected_and_named(tiny: TinyBase) -> None:
    (dog,) = tiny.build(tiny_request("dog"))
    (gogh,) = tiny.build(tiny_request("van gogh", guarded={dog.patch_id: dog.tensors.targets}))
    (mutual,) = tiny.build(tiny_request("dog", guarded={gogh.patch_id: gogh.tensors.targets}))
    assert gogh.manifest.protected.patches == (dog.patch_id,)
    assert isinstance(check([Member(mutual), Member(gogh)]), Accepted)


def test_neighbours_are_those_of_the_prompts(tiny: TinyBase) -> None:
    words = ["photo", "a dog", "x" * 3000, "tree", "dog dog", "the dog"]
    found = find_nearest_protected(tiny.encoder, "dog", words, {})
    assert len(found) == 3
    assert {near.name for near in found} == {"a dog", "dog dog", "the dog"}
    assert all(-1 <= near.cosine <= 1 for near in found)
    assert find_nearest_protected(tiny.encoder, "dog", [], {}) == ()
    assert find_nearest_protected(tiny.encoder, "dog", ["dog"], {})[0].cosine == pytest.approx(1.0, abs=1e-6)


# --- Refused as input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"targets": ()}, ConceptError),
        ({"targets": (Target("dog", "cat"), Target(" Dog", "tree"))}, ConceptError),
        ({"tokens": "all"}, InputError),
        ({"templates": ()}, ConceptError),
        ({"templates": ("a photo",)}, ConceptError),
        ({"templates": ("{}", "{} and {}")}, ConceptError),
    ],
)
def test_requests_that_make_no_sense_are_refused(changes: dict[str, Any], error: type[RasuraError]) -> None:
    with pytest.raises(error):
        tiny_request(**changes)


LONG = " ".join(["dog"] * 80)
LONG_RETAINED = " ".join(["cat"] * 80)  # names no target, or its prompts would be left out


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (tiny_request(LONG), "tokens: expected at most 77"),
        (tiny_request(templates=(LONG + " {}",)), "tokens: expected at most 77"),
        (tiny_request(retain=RetainSet("r.txt", (LONG_RETAINED,))), "tokens: expected at most 77"),
        (tiny_request(held_out=(LONG_RETAINED,)), "tokens: expected at most 77"),
        (tiny_request(targets=(Target("dog", LONG),)), "tokens: expected at most 77"),
        (tiny_request(templates=("{}s",)), "as tokens of its own"),
    ],
    ids=["concept", "template", "retain", "held-out", "anchor", "hidden"],
)
def test_prompts_that_the_encoder_cannot_read_are_refused(tiny: TinyBase, request_: EraseRequest, match: str) -> None:
    before = _digest(tiny.host.folder)
    with pytest.raises(ConceptError, match=match):
        tiny.build(request_)
    assert _digest(tiny.host.folder) == before


# --- Refused models ---------------------------------------------------------------------------------------------------


def _digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).hexdigest()


def _edit(model: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(model / UNET)), model / UNET, {"format": "pt"})


def _self_attention_only(model: Path) -> None:
    _edit(model, lambda tensors: {name: t for name, t in tensors.items() if ".attn2." not in name})


def _one_nan(model: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[max(name for name in tensors if "attn2.to_v" in name)][3, 5] = float("nan")
        return tensors

    _edit(model, change)


def _float64(model: Path) -> None:
    _edit(model, lambda tensors: {name: t.double() for name, t in tensors.items()})


def _narrow_text_encoder(model: Path) -> None:
    shutil.rmtree(model / "text_encoder")
    small = tiny_model(model.parent / "small", TinySpec())
    shutil.copytree(small / "text_encoder", model / "text_encoder")


MODELS: dict[str, tuple[Callable[[Path], None], type[RasuraError], str]] = {
    "a UNet without cross-attention": (_self_attention_only, UnsupportedHostError, "no cross-attention"),
    "one NaN": (_one_nan, NotFiniteError, "expected finite weights"),
    "float64 weights": (_float64, UnsupportedHostError, "expected weights in one of F16, BF16, F32"),
    "a text encoder of another width": (_narrow_text_encoder, UnsupportedHostError, "got 64 from the text encoder"),
}


@pytest.mark.parametrize("flaw", MODELS)
def test_models_are_refused_with(flaw: str, tiny: TinyBase, tmp_path: Path) -> None:
    model = shutil.copytree(tiny.host.folder, tmp_path / "model")
    breaking, error, match = MODELS[flaw]
    breaking(model)
    before = _digest(model)
    with pytest.raises(error, match=match):
        TinyBase.open(model).build(tiny_request())
    assert _digest(model) == before


def test_no_patch_is_made_of_a_model_that_is_patched_already_but_of_its_originals(
    tiny: TinyBase, patches: tuple[Patch, ...], tmp_path: Path
) -> None:
    """A host with something applied still gives the patches of its pristine weights."""
    patched = TinyBase.open(shutil.copytree(tiny.host.folder, tmp_path / "model"))
    increments = patches[0].tensors.increments
    pristine = patched.host.originals(increments)
    patched.host.write({name: compose(pristine[name], [Term(increments[name])]) for name in increments})
    again = TinyBase.open(tmp_path / "model").build(tiny_request("dog", "van gogh", licence="MIT"))
    assert [p.patch_id for p in again] == [p.patch_id for p in patches]
    assert PatchId(again[0].patch_id)


# --- Templates of their own ---------------------------------------------------------------------------------------------


def test_each_concept_stands_in_its_own_prompts_and_the_rest_in_all_but_those_that_name_a_target(
    tiny: TinyBase,
) -> None:
    """The same request with the same prompts for both is another patch; what was protected is written down."""
    own = Target("dog", "cat", ("a photo of a {}",))
    shared = tiny_request(targets=(own, Target("van gogh", "cat")), templates=("{}", "painting of {}"))
    dog, painter = tiny.build(shared)
    assert dog.manifest.concept.templates == ("a photo of a {}",)
    assert painter.manifest.concept.templates == ("{}", "painting of {}")
    for patch in (dog, painter):
        retain = patch.manifest.protected.retain
        assert retain is not None
        assert retain.templates == ("a photo of a {}", "{}", "painting of {}")


def test_whole_prompts_stand_in_no_template(tiny: TinyBase) -> None:
    whole = RetainSet("r.jsonl", ("a photo of a cat", "a dog and a cat", "cat"), whole=True)
    request = tiny_request(retain=whole)
    assert list(request.retained_prompts()) == ["a photo of a cat", "cat"]  # the other names the target
    (patch,) = tiny.build(request)
    assert patch.manifest.protected.retain is not None
    assert patch.manifest.protected.retain.templates == ("{}",)


def test_retained_prompts_are_streamed() -> None:
    """A million concepts in eight templates are eight million prompts, of which one is in memory."""
    request = tiny_request(retain=RetainSet("r.txt", tuple(map(str, range(1_000_000)))), templates=GENERIC_TEMPLATES)
    prompts = request.retained_prompts()
    assert [next(prompts) for _ in range(3)] == ["0", "a 0", "a photo of a 0"]
    assert request.retained_count == 8_000_000


def test_retained_tokens_are_those_that_were_asked_for(tiny: TinyBase) -> None:
    request = tiny_request(retain=RetainSet("r.txt", ("photo", "van gogh")), templates=("a {} of",))
    prompts = _Prompts(tiny.encoder, request, lambda *_: None)
    hidden = tiny.encoder.encode_all(["a photo of", "a van gogh of"])
    for tokens, expected in {
        "last": [hidden[0, 2:3], hidden[1, 3:4]],
        "subject": [hidden[0, 2:3], hidden[1, 2:4]],
        "tail": [hidden[0, 2:], hidden[1, 2:]],
        "all": [hidden[0], hidden[1]],
    }.items():
        assert torch.equal(torch.cat(list(prompts.retained(tokens))), torch.cat(expected))


def test_an_anchor_is_found_among_general_concepts(tiny: TinyBase) -> None:
    (patch,) = tiny.build(tiny_request(targets=(Target("dog", "auto"),), anchors=("painting", "dog", "gogh")))
    names = [near.name for near in find_nearest_protected(tiny.encoder, "dog", ("painting", "gogh"), {})]
    assert patch.manifest.concept.anchor == names[0]
    (other,) = tiny.build(tiny_request(targets=(Target("dog", names[0]),)))
    assert other.patch_id == patch.patch_id


def test_no_anchor_can_be_found_among_none(tiny: TinyBase) -> None:
    with pytest.raises(ConceptError, match="no anchor found for 'dog' among 0 general concepts") as caught:
        tiny.build(tiny_request(targets=(Target("dog", "auto"),), anchors=("dog",)))
    assert caught.value.hint == "--anchor TEXT"


def test_layers_that_the_method_does_not_know_are_refused(tiny: TinyBase) -> None:
    with pytest.raises(InputError, match="layers 'q': expected one of k, v, kv"):
        tiny.build(tiny_request(layers="q"))


def test_retained_prompts_never_name_a_target(tiny: TinyBase) -> None:
    """A template may name another concept; where that is a target, protecting the prompt would protect the target."""
    named = tiny_request(targets=(Target("dog", "cat"), Target("photo", "cat", ("{} of a dog",))), templates=("{}",))
    without = replace(named, targets=(named.targets[0], Target("photo", "cat", ("{} of",))))
    assert request_prompts(named) == ["tree", "house"]
    assert request_prompts(without) == ["tree", "tree of", "house", "house of"]
    assert len(tiny.build(named)) == 2


def request_prompts(request: EraseRequest) -> list[str]:
    return list(request.prompts(("tree", "house")))
