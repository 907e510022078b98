# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What `status` finds: hashes of what is there against what the registry can predict, without writing anything."""

import shutil
from collections.abc import Iterator

import pytest
import torch
from support.models.tiny import TinySpec, tiny_model, tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Workshop, silent, workshop

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.policy import DEFAULT_POLICY
from rasura.patches.errors import ConflictError, NotFoundError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.hosts import host_state
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.prepare import prepare_motion
from rasura.registry.apply.status import Survey, survey
from rasura.registry.registry import Registry


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def look(shop: Workshop, *, deep: bool = False) -> Survey:
    with shop.unchanged(), shop.open() as registry:
        return survey(registry, shop.host(), deep=deep, progress=silent)


def test_a_model_that_nobody_touched(workshop: Workshop) -> None:
    assert look(workshop) == Survey(str(workshop.model), Stack(), 0, 0, ())
    deep = look(workshop, deep=True)
    assert (deep.touched, deep.drifted) == (0, ())
    assert deep.hashed == len(workshop.host().parameters())


def test_a_patched_model(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    assert look(workshop) == Survey(str(workshop.model), Stack({workshop.dog: ONE, workshop.photo: ONE}), 8, 8, ())
    deep = look(workshop, deep=True)
    assert (deep.applied, deep.touched, deep.drifted) == (Stack({workshop.dog: ONE, workshop.photo: ONE}), 8, ())


def test_only_a_deep_look_names_the_parameter(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    host = workshop.host()
    touched = host_state.list_touched(registry, [workshop.dog])
    host.write({touched[3]: host.read(touched[3:4])[touched[3]] * 2})
    shallow, deep = look(workshop), look(workshop, deep=True)
    assert (shallow.drifted, shallow.exact) == (tuple(touched), False)
    assert (deep.drifted, deep.exact) == ((touched[3],), True)


def test_originals_that_no_patch_of_ours_explains(workshop: Workshop) -> None:
    host = workshop.host()
    name = min(host.parameters())
    host.write({name: host.read([name])[name] * 2})
    assert look(workshop).drifted == (name,)


def test_a_deep_look_at_a_model_that_is_no_base_of_ours(workshop: Workshop, registry: Registry) -> None:
    other = tiny_model(workshop.folder / "another one", TinySpec(dtype="float16", seed=4))
    assert survey(registry, CheckpointHost.open(other), deep=False, progress=silent).drifted == ()
    with pytest.raises(NotFoundError, match="none of the registered bases") as caught:
        survey(registry, CheckpointHost.open(other), deep=True, progress=silent)
    assert caught.value.hint == f"rasura base add '{other}'"


def test_a_copy_of_a_patched_folder_is_told(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    copied = shutil.copytree(workshop.model, workshop.folder / "copied")
    with pytest.raises(ConflictError):
        survey(registry, CheckpointHost.open(copied), deep=False, progress=silent)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_a_live_model_deeply(workshop: Workshop, registry: Registry, dtype: torch.dtype) -> None:
    """float32 digests of the projections are known from the base; of the rest, nobody knows them."""
    pipeline = tiny_pipeline(SPEC).to(dtype=dtype)
    host = TorchHost.of(pipeline, "serving")
    operations.apply(registry, host, [workshop.dog], ALICE)
    found = survey(registry, host, deep=True, progress=silent)
    assert (found.applied, found.drifted) == (Stack({workshop.dog: ONE}), ())
    # In another dtype only what a patch may touch is known: 8 projections and 2 feed-forward layers.
    assert found.hashed == (len(host.parameters()) if dtype == torch.float16 else 10)
    name = host_state.list_touched(registry, [workshop.dog])[0]
    with torch.no_grad():
        pipeline.unet.get_parameter(name.removeprefix("unet.")).view(-1)[0] += 1
    assert survey(registry, host, deep=True, progress=silent).drifted == (name,)


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupted_motion_is_shown_from_the_side_that_the_model_is_on(
    workshop: Workshop, registry: Registry, *, written: bool
) -> None:
    host = workshop.host()
    motion = prepare_motion(registry, Glance(host), Stack(), Stack({workshop.dog: ONE}), DEFAULT_POLICY)
    draft = Draft("a", "", host_state.APPLY, "begun", (workshop.dog,), motion.record.base, motion.record.host_id)
    entry = registry.note(
        Draft(
            "a",
            "",
            host_state.APPLY,
            "begun",
            draft.patches,
            base=draft.base,
            host=draft.host,
            before=motion.before,
            after=motion.after,
            details={"location": host.location},
        )
    )
    if written:
        host.write(motion.tensors)
    found = look(workshop)
    assert found.interrupted == entry.index
    assert found.applied == ({workshop.dog: ONE} if written else {})
    assert found.drifted == ()
