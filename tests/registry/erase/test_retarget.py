# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A patch for another UNet behind the same text encoder: what it does there, end to end, and what is refused."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models.tiny import tiny_model
from support.registries.workshop import ALICE, SPEC, Workshop, digests, erased, request_for, silent, workshop

from rasura.patches.algebra.increment import RESPONSE_STEP, Increment
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.errors import BaseMismatchError, ErasureRefusedError, ExistsError, InputError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.solving.retarget import responses_of
from rasura.patches.types import ParamName, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import erase
from rasura.registry.erase.retarget import Retargeted, retarget
from rasura.registry.erase.solve_again import Anew
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.takedown.follow import Followed, retarget_stack
from rasura.registry.trust.verified_patch import load_verified

DRAFT = Draft("bob", "fine-tune", "patch.retarget", "success")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


@pytest.fixture
def second(workshop: Workshop, tmp_path: Path) -> Path:
    """The workshop's model with another UNet."""
    return with_other_unet(workshop.model, tmp_path / "second", tmp_path / "scratch")


def with_other_unet(model: Path, folder: Path, scratch: Path, *, small: bool = False) -> Path:
    shutil.copytree(model, folder)
    shutil.rmtree(folder / "unet")
    spec = replace(SPEC, seed=5, size="small" if small else SPEC.size)
    shutil.copytree(tiny_model(scratch, spec) / "unet", folder / "unet")
    return folder


def moved(registry: Registry, patch: PatchId, base: str | Path, how: Anew | None = None) -> Retargeted:
    return retarget(registry, patch, str(base), how or Anew(), draft=DRAFT, progress=silent)


def within_the_grid(one: Increment, other: Increment) -> bool:
    return torch.equal(one.A, other.A) and float((one.B - other.B).abs().max()) <= RESPONSE_STEP


def by(registry: Registry, name: str, concept: str = "of", **settings: str) -> PatchId:
    request = replace(request_for(Target(concept, "cat")), eraser=eraser(name, settings))
    made = erase(registry, "tiny", request, key=None, protect=(), draft=DRAFT, progress=silent)
    return made[0].patch.patch_id


@pytest.mark.parametrize("name", ["null-space", "uce", "rece"])
def test_onto_its_own_base_within_the_grid(registry: Registry, name: str) -> None:
    patch = by(registry, name)
    made = moved(registry, patch, "tiny")
    assert made.way == "weights"
    assert made.fit < 1e-4
    old, new = made.old.tensors.increments, made.patch.tensors.increments
    assert list(old) == list(new)
    assert all(within_the_grid(old[n], new[n]) for n in old)
    options = made.patch.manifest.eraser.options
    assert (options["derived"], options["derived_from"], options["derived_by"]) == ("retargeted", patch, "weights")
    assert made.patch.patch_id != patch


def test_speed_has_a_detector_a_layer(registry: Registry) -> None:
    """Layers too narrow to tell Q, which lies in the span of D."""
    made = moved(registry, by(registry, "speed", aug="2"), "tiny")
    assert made.fit < 1e-4
    for name, old in made.old.tensors.increments.items():
        error = (made.patch.tensors.increments[name].B - old.B).norm() / old.B.norm()
        assert float(error) < 1e-3


def test_the_patch_of_a_second_unet_is_that_which_would_be_solved_there(
    workshop: Workshop, registry: Registry, second: Path
) -> None:
    """The detector comes from the first UNet's layers; with one column a concept any weights give the same."""
    photo = erased(registry, Target("photo", "cat"))[0]
    made = moved(registry, photo, second)
    there = erased(registry, Target("photo", "cat"), base="second")[0]
    native = load_verified(registry, there).manifest.measured
    measured = made.patch.manifest.measured
    assert float(measured["residual"]) == pytest.approx(float(native["residual"]), abs=0.05)
    assert float(measured["effect"]) == pytest.approx(float(native["effect"]), rel=0.1)
    assert made.promise_new < 1e-5
    assert made.patch.manifest.base.sha256 == registry.base("second").digest != made.old.manifest.base.sha256
    assert made.patch.manifest.protected == made.old.manifest.protected
    assert made.patch.manifest.supersedes == ()


def test_end_to_end(workshop: Workshop, registry: Registry, second: Path) -> None:
    before, size = digests(second), len(workshop.entries())
    made = moved(registry, workshop.dog, second)
    added, entry = workshop.entries()[size:]
    assert (added.action, entry.action, entry.outcome) == ("base.add", "patch.retarget", "success")
    assert entry.details == {"from": workshop.dog, "responses": "weights"}
    assert registry.patch(made.patch.patch_id).source == f"retarget of {workshop.dog[:12]} to second"
    with pytest.raises(BaseMismatchError):
        operations.apply(registry, CheckpointHost.open(second), [workshop.dog], ALICE)
    assert digests(second) == before
    operations.apply(registry, CheckpointHost.open(second), [made.patch.patch_id], ALICE)
    host = CheckpointHost.open(second)
    name, increment = next(iter(made.patch.tensors.increments.items()))
    pristine, patched = host.originals([name])[name], host.read([name])[name]
    assert torch.equal(patched, (pristine.double() + increment.dense()).float().half())
    operations.revert(registry, CheckpointHost.open(second), [made.patch.patch_id], ALICE)
    after = digests(second)
    assert {n: d for n, d in after.items() if n in before} == before
    verify_log(registry)


def test_without_the_old_base_from_targets(registry: Registry, second: Path, tmp_path: Path) -> None:
    """The base is a folder that is gone, and then one that holds other weights."""
    (photo,) = erased(registry, Target("photo", "cat"), base=str(second))
    shutil.rmtree(second / "unet")
    shutil.copytree(tiny_model(tmp_path / "drifted", replace(SPEC, seed=6)) / "unet", second / "unet")
    assert moved(registry, photo, "tiny").way == "targets"
    shutil.rmtree(second)
    made = moved(registry, photo, "tiny")
    assert (made.way, made.patch.manifest.eraser.options["derived_by"]) == ("targets", "targets")
    assert float(made.patch.manifest.measured["residual"]) < 0.5
    assert made.promise_new < 1e-5


def test_without_the_words_retained_leak_is_not_told(workshop: Workshop, registry: Registry, second: Path) -> None:
    spec = load_verified(registry, workshop.rival).manifest.protected.retain
    assert spec is not None
    registry.blobs.path(spec.sha256).unlink()
    made = moved(registry, workshop.rival, second)
    assert "leak_retained" not in made.patch.manifest.measured
    assert "leak_held_out" in made.patch.manifest.measured
    assert made.doubts == (f"not judged whether it erases dog: the words of {spec.source} are not here",)


def test_what_is_refused(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    add_base(registry, tiny_model(tmp_path / "other", replace(SPEC, seed=3)), "other", DRAFT, silent)
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError, match="text encoder"):
        moved(registry, workshop.dog, "other")
    encoder = by(registry, "null-space")
    lacking = with_other_unet(workshop.model, tmp_path / "lacking", tmp_path / "scratch", small=True)
    add_base(registry, lacking, "lacking", DRAFT, silent)
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError, match="expected a projection"):
        moved(registry, encoder, "lacking")
    request = replace(request_for(Target("of", "cat")), eraser=eraser("clip-null-space", {}), layers="auto")
    made = erase(registry, "tiny", request, key=None, protect=(), draft=DRAFT, progress=silent)
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="fits as it is"):
        moved(registry, made[0].patch.patch_id, "tiny")


def test_responses_that_are_no_map_of_the_embedding(workshop: Workshop, registry: Registry) -> None:
    """As training gives them: any B beside the same A."""
    patch = load_verified(registry, workshop.dog)
    weights: dict[ParamName, torch.Tensor] = workshop.host().originals(patch.tensors.increments)
    generator = torch.Generator().manual_seed(1)
    trained = {
        name: Increment.quantised(own.A, torch.randn(own.B.shape, generator=generator) * own.B.std())
        for name, own in patch.tensors.increments.items()
    }
    odd = replace(patch, arrays=replace(patch.arrays, increments=trained))
    with pytest.raises(ErasureRefusedError, match="no map of the text embedding") as caught:
        responses_of(odd, weights)
    assert float(str(caught.value.details["fit"])) > 0.1
    sepme = replace(odd, manifest=replace(odd.manifest, eraser=replace(odd.manifest.eraser, name="sepme")))
    with pytest.raises(ErasureRefusedError, match="they were trained"):
        responses_of(sepme, None)


def follow(registry: Registry, name: str, base: Path, *, dry_run: bool = False) -> Followed:
    return retarget_stack(
        registry, name, str(base), Anew(), to=None, actor=ALICE, draft=DRAFT, progress=silent, dry_run=dry_run
    )


def test_a_whole_stack_follows_to_a_finetune(workshop: Workshop, registry: Registry, second: Path) -> None:
    edit.create(registry, "brand", edit.members_of(registry, [f"{workshop.dog}=0.5"]), ALICE)
    planned = follow(registry, "brand", second, dry_run=True)
    assert [stack.name for stack in registry.stacks()] == ["brand"]
    made = follow(registry, "brand", second)
    (item,) = made.patches
    assert (made.stack.name, made.base, made.reads_otherwise) == ("brand-second", "second", "")
    assert [one.patch.patch_id for one in planned.patches] == [item.patch.patch_id]
    assert registry.stack("brand-second").patches == {item.patch.patch_id: 8}
    assert set(made.drift) == set(item.old.tensors.increments)
    assert min(made.drift.values()) > 0.1
    residual = float(item.patch.manifest.measured["residual"])
    assert item.as_it_is is not None
    assert residual < 0.5 < item.as_it_is  # other weights: the old responses erase little there
    created, carried = workshop.entries()[-1], workshop.entries()[-2]
    assert (created.action, created.details["from"]) == ("stack.create", "brand")
    assert (carried.action, carried.details) == ("patch.retarget", {"from": workshop.dog, "responses": "weights"})
    with workshop.unchanged("refused exists"), pytest.raises(ExistsError, match="brand-second"):
        follow(registry, "brand", second)


def test_behind_another_encoder_a_stack_is_solved_anew(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    edit.create(registry, "brand", edit.members_of(registry, [workshop.dog]), ALICE)
    other = tiny_model(tmp_path / "other", replace(SPEC, seed=3))
    made = follow(registry, "brand", other)
    (item,) = made.patches
    assert (made.reads_otherwise, made.drift, item.as_it_is, item.way) == ("text encoder", {}, None, "words")
    options = item.patch.manifest.eraser.options
    assert (options["derived_from"], options["derived_by"]) == (workshop.dog, "words")
    assert item.patch.manifest.base.sha256 == registry.base(made.base).digest
    assert float(item.patch.manifest.measured["residual"]) < 0.5
    operations.apply(registry, CheckpointHost.open(other), [item.patch.patch_id], ALICE)
    verify_log(registry)
