# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Switching a model to exactly a set, in one motion, on disk and live; interrupted, it is settled like any other."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models.tiny import tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Mortal, Workshop, workshop

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.errors import (
    BaseMismatchError,
    CheckRefusedError,
    DigestMismatchError,
    ExistsError,
    FormatError,
    NotFoundError,
)
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts import host_state
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.prepare import prepare_motion
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.lock_stack import lock_stack
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.stacks.stack_ref import goal_of


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def goal(patches: dict[PatchId, Strength], base: Digest | None = None) -> Goal:
    return Goal("a set", base, patches)


def applied(registry: Registry, workshop: Workshop) -> Stack:
    return host_state.present_set(registry, workshop.host())


def test_one_motion_takes_out_puts_in_and_changes_strengths(workshop: Workshop, registry: Registry) -> None:
    first = workshop.digests()
    operations.apply(registry, workshop.host(), [workshop.dog, workshop.van_gogh], ALICE)
    size = len(workshop.entries())
    wanted = {workshop.van_gogh: Strength(8), workshop.photo: Strength(-4)}
    receipt = operations.switch(registry, workshop.host(), goal(wanted), ALICE)
    assert (receipt.applied, receipt.changed, receipt.pristine) == (Stack(wanted), True, False)
    assert applied(registry, workshop) == wanted
    begun, done = workshop.entries()[size:]
    assert (begun.outcome, done.outcome, begun.action, done.closes) == ("begun", "done", "patch.switch", begun.index)
    assert set(begun.patches) == {workshop.dog, workshop.van_gogh, workshop.photo}
    assert host_state.read_set(registry, Digest(str(begun.details["set"]))) == wanted
    there = workshop.digests()
    operations.revert(registry, workshop.host(), None, ALICE)
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE, strength=Strength(-4))
    operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE, strength=Strength(8))
    model = {name: value for name, value in workshop.digests().items() if not name.startswith(".rasura-host")}
    assert model == {name: value for name, value in there.items() if not name.startswith(".rasura-host")}
    receipt = operations.switch(registry, workshop.host(), goal({}), ALICE)
    assert receipt.pristine
    assert workshop.digests() == first
    verify_log(registry)


def test_where_it_is_already_nothing_happens(workshop: Workshop, registry: Registry) -> None:
    with workshop.unchanged():
        receipt = operations.switch(registry, workshop.host(), goal({}), ALICE)
    assert (receipt.changed, receipt.pristine, receipt.parameters) == (False, True, 0)
    operations.switch(registry, workshop.host(), goal({workshop.dog: ONE}), ALICE)
    with workshop.unchanged():
        receipt = operations.switch(registry, workshop.host(), goal({workshop.dog: ONE}), ALICE)
    assert (receipt.changed, receipt.before, receipt.applied) == (False, receipt.after, Stack({workshop.dog: ONE}))


def test_a_refused_switch_changes_nothing(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    with workshop.unchanged("refused check_refused"), pytest.raises(CheckRefusedError):
        operations.switch(registry, workshop.host(), goal({workshop.dog: ONE, workshop.rival: ONE}), ALICE)
    base = registry.base("tiny").digest
    operations.revert(registry, workshop.host(), None, ALICE)
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError):
        operations.switch(registry, workshop.host(), goal({}, Digest("0" * 64)), ALICE)
    assert not operations.switch(registry, workshop.host(), goal({}, base), ALICE).changed


def test_a_copy_is_switched_and_the_source_is_not(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    first, out = workshop.digests(), tmp_path / "out"
    operations.switch_folder(registry, workshop.model, goal({workshop.dog: Strength(8)}), ALICE, out=out)
    assert workshop.digests() == first
    assert host_state.present_set(registry, CheckpointHost.open(out)) == {workshop.dog: Strength(8)}
    with pytest.raises(ExistsError):
        operations.switch_folder(registry, workshop.model, goal({}), ALICE, out=out)
    both = goal({workshop.dog: ONE, workshop.rival: ONE})
    with pytest.raises(CheckRefusedError):
        operations.switch_folder(registry, workshop.model, both, ALICE, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_live_model_is_switched_to_the_same_bits(workshop: Workshop, registry: Registry) -> None:
    live = TorchHost.of(tiny_pipeline(SPEC).to(dtype=torch.float16), "serving")
    operations.apply(registry, live, [workshop.dog], ALICE)
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    wanted = goal({workshop.photo: Strength(24)})
    assert (
        operations.switch(registry, live, wanted, ALICE).after
        == operations.switch(registry, workshop.host(), wanted, ALICE).after
    )
    assert operations.switch(registry, live, goal({}), ALICE).pristine


# --- the policy ------------------------------------------------------------------------------------------------------

TIGHT = Policy(pair=1e-12)


def test_motions_are_held_to_the_policy_in_force(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, TIGHT, ALICE)
    together, loose = goal(dict.fromkeys(workshop.all, ONE)), Policy(pair=9.0)
    attempts: list[Callable[[], object]] = [
        lambda: operations.apply(registry, workshop.host(), workshop.all, ALICE),
        lambda: operations.switch(registry, workshop.host(), together, ALICE),
        # a policy of the command cannot loosen it
        lambda: operations.apply(registry, workshop.host(), workshop.all, ALICE, policy=loose),
    ]
    for attempt in attempts:
        with (
            workshop.unchanged("refused check_refused"),
            pytest.raises(CheckRefusedError, match=r"limit 0\.000000000001 "),
        ):
            attempt()
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)  # one patch disturbs no other


def test_a_policy_of_the_command_makes_it_stricter(workshop: Workshop, registry: Registry) -> None:
    with workshop.unchanged("refused check_refused"), pytest.raises(CheckRefusedError, match=r"limit 0\.000000000001 "):
        operations.apply_to_folder(registry, workshop.model, workshop.all, ALICE, policy=TIGHT)
    with workshop.unchanged("refused check_refused"), pytest.raises(CheckRefusedError, match=r"limit 0\.000000000001 "):
        operations.switch_folder(registry, workshop.model, goal(dict.fromkeys(workshop.all, ONE)), ALICE, policy=TIGHT)
    operations.apply(registry, workshop.host(), workshop.all, ALICE)


def test_a_looser_policy_lets_more_pass(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, TIGHT, ALICE)
    with pytest.raises(CheckRefusedError):
        operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    put_in_force(registry, Policy(pair=99.0, stack=99.0, own=99.0), ALICE)
    operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)


# --- goals -----------------------------------------------------------------------------------------------------------


def test_a_lock_of_another_registry_names_what_is_missing(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    record = edit.create(registry, "brand", {workshop.dog: ONE, workshop.photo: Strength(8)}, ALICE)
    path = tmp_path / "rasura.lock"
    path.write_bytes(lock_stack(registry, record).to_bytes())
    assert goal_of(registry, str(path)).patches == goal_of(registry, "brand").patches
    operations.switch(registry, workshop.host(), goal_of(registry, str(path)), ALICE)
    assert applied(registry, workshop) == {workshop.dog: ONE, workshop.photo: Strength(8)}
    with Registry.create(tmp_path / "other") as other:
        with pytest.raises(NotFoundError, match=r"base .* of the lock is not in this registry"):
            goal_of(other, str(path))
        other.add_base(registry.base("tiny"), Draft("a", "", "base.add", "success"))
        with pytest.raises(NotFoundError, match="of the lock is not in this registry") as caught:
            goal_of(other, str(path))
        assert caught.value.hint == "rasura pull REPO"
    sig = registry.patch(workshop.dog).files["model.sig"]
    path.write_bytes(path.read_bytes().replace(sig.encode(), b"0" * 64))
    with pytest.raises(DigestMismatchError, match="other files"):
        goal_of(registry, str(path))
    with pytest.raises(NotFoundError, match="does not exist"):
        goal_of(registry, str(tmp_path / "no.lock"))


# --- interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
def test_a_switch_that_died_after_it_wrote_is_ended_as_done(
    workshop: Workshop, registry: Registry, *, wanted: bool
) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    target = {workshop.photo: Strength(8), workshop.dog: Strength(-2)} if wanted else {}
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.switch(mortal, workshop.host(), goal(target), ALICE)
    seen = host_state.sight_host(registry, workshop.host())
    assert seen is not None
    assert host_state.applied_of(seen) == target
    assert len(registry.unfinished()) == 1
    host_state.settle_motion(registry, workshop.host())
    assert applied(registry, workshop) == target
    assert registry.unfinished() == ()
    assert workshop.entries()[-1].details["settled"] == "yes"
    verify_log(registry)


def test_a_switch_that_died_before_it_wrote_is_ended_as_failed(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    host, wanted = workshop.host(), Stack({workshop.photo: ONE})
    motion = prepare_motion(registry, Glance(host), Stack({workshop.dog: ONE}), wanted, DEFAULT_POLICY)
    begun = Draft(
        "alice", "", host_state.SWITCH, "begun", tuple(wanted), base=motion.record.base, host=motion.record.host_id
    )
    details = {"location": host.location, "set": host_state.keep_set(registry, wanted)}

    registry.note(replace(begun, before=motion.before, after=motion.after, details=details))
    operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)
    assert applied(registry, workshop) == {workshop.dog: ONE, workshop.van_gogh: ONE}
    assert [e.outcome for e in workshop.entries()[-3:]] == ["failed", "begun", "done"]
    verify_log(registry)


def test_a_set_whose_blob_is_gone_or_something_else_settles_nothing(workshop: Workshop, registry: Registry) -> None:
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.switch(mortal, workshop.host(), goal({workshop.dog: ONE}), ALICE)
    digest = Digest(str(registry.unfinished()[0].details["set"]))
    path = registry.blobs.path(digest)
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(NotFoundError):
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    assert len(registry.unfinished()) == 1
    registry.blobs.put(data, digest)
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    assert applied(registry, workshop) == {workshop.dog: ONE, workshop.photo: ONE}
    with pytest.raises(FormatError):
        host_state.read_set(registry, registry.blobs.put(b'{"format":"rasura-set/2","patches":{}}'))
    with pytest.raises(FormatError):
        host_state.read_set(registry, registry.blobs.put(b'{"format":"rasura-set/1","patches":{"x":65}}'))
