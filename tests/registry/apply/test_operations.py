# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Apply, revert, any subset in any order, on disk and live; what was predicted is what is there."""

import json
import shutil
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import pytest
import torch
from support.models.tiny import TinySpec, tiny_model, tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Mortal, Workshop, copy_of, digests, erased, silent, start, workshop

from rasura.patches._io.tensor_bytes import RawValue, Storable
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.check import DEFAULT_POLICY
from rasura.patches.errors import (
    AlreadyAppliedError,
    BaseMismatchError,
    BusyError,
    CheckRefusedError,
    ConflictError,
    DriftError,
    ExistsError,
    InputError,
    NotAppliedError,
    NotFoundError,
    RasuraError,
    StrengthError,
)
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal.journal_record import RangeChange
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.types import ParamName, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts import host_state
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.prepare import prepare_motion
from rasura.registry.apply.receipt import Actor
from rasura.registry.erase.base_models import add_base
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import trust_file
from rasura.registry.trust.register_patch import SignedPatch, add_signed


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def state(registry: Registry, host: CheckpointHost | TorchHost, *patches: PatchId) -> str:
    """Digest of everything that these patches touch, as it is."""
    return host_state.state_of(host, host_state.list_touched(registry, patches))


def test_the_receipt_says_what_is_there(workshop: Workshop, registry: Registry) -> None:
    before = state(registry, workshop.host(), workshop.dog)
    receipt = operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert receipt.location == str(workshop.model)
    assert receipt.applied == {workshop.dog: ONE}
    assert (receipt.before, receipt.after) == (before, state(registry, workshop.host(), workshop.dog))
    assert receipt.before != receipt.after
    assert (receipt.parameters, receipt.pristine) == (8, False)


def test_any_order_any_subset(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    """Applied one by one in every order, or at once, or with a detour: one digest a set."""
    found: dict[frozenset[PatchId], set[str]] = {}
    for order in (workshop.all, workshop.all[::-1], (workshop.van_gogh, workshop.dog, workshop.photo)):
        present: set[PatchId] = set()
        for patch in order:
            operations.apply(registry, workshop.host(), [patch], ALICE)
            present.add(patch)
            found.setdefault(frozenset(present), set()).add(state(registry, workshop.host(), *workshop.all))
        for patch in order[:2]:  # the first is in the middle of those that are left
            operations.revert(registry, workshop.host(), [patch], ALICE)
            present.remove(patch)
            found.setdefault(frozenset(present), set()).add(state(registry, workshop.host(), *workshop.all))
        operations.revert(registry, workshop.host(), None, ALICE)
    assert len(found) == 7
    assert {len(states) for states in found.values()} == {1}
    assert len(set.union(*found.values())) == 7
    verify_log(registry)


def test_the_middle_one_of_several_goes_and_the_last_leaves_every_byte(
    workshop: Workshop,
    registry: Registry,
    tmp_path: Path,
) -> None:
    first = workshop.digests()
    shutil.copytree(workshop.model, tmp_path / "without")
    without = CheckpointHost.open(tmp_path / "without")
    operations.apply(registry, workshop.host(), workshop.all, ALICE)
    assert workshop.digests() != first
    operations.revert(registry, workshop.host(), [workshop.van_gogh], ALICE)
    operations.apply(registry, without, [workshop.photo, workshop.dog], ALICE)
    assert state(registry, workshop.host(), *workshop.all) == state(registry, without, *workshop.all)
    receipt = operations.revert(registry, workshop.host(), [workshop.photo, workshop.dog], ALICE)
    assert receipt.pristine
    assert workshop.digests() == first


def test_the_log_tells_each_motion_with_its_digests(workshop: Workshop, registry: Registry) -> None:
    size = len(workshop.entries())
    first = operations.apply(registry, workshop.host(), [workshop.dog], Actor("bob", "takedown 9"))
    last = operations.revert(registry, workshop.host(), None, ALICE)
    begun, done, back, end = workshop.entries()[size:]
    for entry, outcome, action, receipt in (
        (begun, "begun", "patch.apply", first),
        (done, "done", "patch.apply", first),
        (back, "begun", "patch.revert", last),
        (end, "done", "patch.revert", last),
    ):
        assert (entry.outcome, entry.action, entry.patches) == (outcome, action, (workshop.dog,))
        assert (entry.before, entry.after) == (receipt.before, receipt.after)
        assert entry.details["location"] == str(workshop.model)
    assert (begun.actor, begun.reason, begun.details["strength"]) == ("bob", "takedown 9", 16)
    assert (done.closes, end.closes) == (begun.index, back.index)
    assert len({entry.host for entry in workshop.entries()[size:]}) == 1


def test_strengths_scale_and_oppose(workshop: Workshop, registry: Registry) -> None:
    name = host_state.list_touched(registry, [workshop.dog])[0]
    pristine = workshop.host().originals([name])[name].double()
    moved = {}
    for text in ("1", "0.5", "-1", "1.9375"):
        receipt = operations.apply(registry, workshop.host(), [workshop.dog], ALICE, strength=Strength.parse(text))
        assert receipt.applied == {workshop.dog: Strength.parse(text)}
        moved[text] = workshop.host().read([name])[name].double() - pristine
        operations.revert(registry, workshop.host(), None, ALICE)
    for text, difference in moved.items():
        assert torch.allclose(difference, moved["1"] * float(text), atol=2e-3)
    with workshop.unchanged(), pytest.raises(StrengthError, match="strength 0"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE, strength=Strength(0))


def test_more_patches_than_a_detail_of_the_log_could_spell(workshop: Workshop, registry: Registry) -> None:
    """Seventy ids are longer than any text of an entry may be; the motion is logged, and settled, all the same."""
    many = [PatchId(f"{n:064x}") for n in range(70)]
    applied = Stack(dict.fromkeys(many, ONE))
    draft = Draft("alice", "", host_state.APPLY, "begun", tuple(many), details={"strength": 8, "location": "/m"})
    entry = registry.note(draft)
    assert host_state._after(registry, entry, Stack()) == dict.fromkeys(many, Strength(8))
    reverted = registry.note(
        Draft("alice", "", host_state.REVERT, "begun", tuple(many[1:]), details={"location": "/m"})
    )
    assert host_state._after(registry, reverted, applied) == {many[0]: ONE}


def test_a_copy_is_patched_and_the_source_is_not(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    first, out = workshop.digests(), tmp_path / "a copy %d"
    receipt = operations.apply_to_folder(registry, workshop.model, [workshop.dog], ALICE, out=out)
    assert receipt.location == str(out)
    assert workshop.digests() == first
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert state(registry, CheckpointHost.open(out), workshop.dog) == receipt.after
    operations.revert(registry, CheckpointHost.open(out), None, ALICE)
    assert digests(out) == first


def test_a_copy_of_a_patched_model_starts_without_patches(
    workshop: Workshop,
    registry: Registry,
    tmp_path: Path,
) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    out = tmp_path / "out"
    assert operations.apply_to_folder(registry, workshop.model, [workshop.photo], ALICE, out=out).applied == {
        workshop.photo: ONE
    }


def test_a_copy_does_not_stay_where_it_may_not_be_patched(
    workshop: Workshop,
    registry: Registry,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(CheckRefusedError):
        operations.apply_to_folder(registry, workshop.model, [workshop.dog, workshop.rival], ALICE, out=out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(ExistsError):
        operations.apply_to_folder(registry, workshop.model, [workshop.dog], ALICE, out=out)
    assert digests(out) == {"mine": digests(out)["mine"]}


def test_a_copy_takes_the_place_of_one_that_was_deleted(
    workshop: Workshop,
    registry: Registry,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        operations.apply_to_folder(registry, workshop.model, [workshop.dog], ALICE, out=out)
        shutil.rmtree(out)
    operations.apply_to_folder(registry, workshop.model, [workshop.photo], ALICE, out=out)
    assert [host.applied for host in registry.hosts()] == [{workshop.photo: 16}]
    verify_log(registry)


# --- live models ----------------------------------------------------------------------------------------------------


def live(dtype: torch.dtype, spec: TinySpec = SPEC) -> TorchHost:
    """The model in memory, its weights read as another dtype."""
    return TorchHost.of(tiny_pipeline(spec).to(dtype=dtype), "serving")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16], ids=str)
def test_a_live_model_takes_the_same_patches(workshop: Workshop, registry: Registry, dtype: torch.dtype) -> None:
    """float32 holds the base's numbers; bfloat16 has lost some of them and is another base."""
    host = live(dtype)
    before = host.digests(host.parameters())
    if dtype == torch.bfloat16:
        with pytest.raises(BaseMismatchError, match="BF16"):
            operations.apply(registry, host, [workshop.dog], ALICE)
        assert host.digests(host.parameters()) == before
        return
    receipt = operations.apply(registry, host, workshop.all, ALICE)
    on_disk = operations.apply(registry, workshop.host(), workshop.all, ALICE)
    assert (receipt.after == on_disk.after) == (dtype == torch.float16)
    assert receipt.after == state(registry, host, *workshop.all)
    operations.revert(registry, host, [workshop.photo], ALICE)
    assert operations.revert(registry, host, None, ALICE).pristine
    assert host.digests(host.parameters()) == before
    assert host.kept() == frozenset()


def test_a_bfloat16_base_is_patched_live_as_on_disk(tmp_path: Path, workshop: Workshop) -> None:
    spec = replace(SPEC, dtype="bfloat16")
    folder = tiny_model(tmp_path / "bf16", spec)
    with workshop.open() as registry:
        add_base(registry, folder, "brain", Draft("a", "", "base.add", "success"), silent)
        (patch,) = erased(registry, Target("dog", "cat"), base="brain")
        host = live(torch.bfloat16, spec)
        receipt = operations.apply(registry, host, [patch], ALICE)
        assert operations.apply(registry, CheckpointHost.open(folder), [patch], ALICE).after == receipt.after
        assert operations.revert(registry, host, None, ALICE).after == receipt.before


def test_a_process_that_starts_anew_starts_with_nothing_applied(workshop: Workshop, registry: Registry) -> None:
    first, second = live(torch.float32), live(torch.float32)
    operations.apply(registry, first, [workshop.dog], ALICE)
    receipt = operations.apply(registry, second, [workshop.photo], ALICE)
    assert receipt.applied == {workshop.photo: ONE}
    assert len({host.location for host in registry.hosts()}) == 2
    again = TorchHost(first._components, "the same modules")
    assert operations.revert(registry, again, [workshop.dog], ALICE).pristine


def test_threads_take_turns(workshop: Workshop, registry: Registry) -> None:
    """Two threads on one live model: both patches are applied in the end."""
    host = live(torch.float16)
    errors: list[BaseException] = []

    def work(patch: PatchId) -> None:
        try:
            with workshop.open() as mine:
                operations.apply(mine, host, [patch], ALICE)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(patch,)) for patch in workshop.all]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (
        state(registry, host, *workshop.all) == operations.apply(registry, workshop.host(), workshop.all, ALICE).after
    )


# --- hosts that move, are copied, or are strangers ----------------------------------------------------------------------


def test_a_model_is_moved_while_it_is_patched(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    """Also after a first round, when the folder's identity had been given up in between."""
    first = workshop.digests()
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    operations.revert(registry, workshop.host(), None, ALICE)
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    moved = workshop.model.rename(tmp_path / "moved")
    receipt = operations.apply(registry, CheckpointHost.open(moved), [workshop.photo], ALICE)
    assert receipt.applied == {workshop.dog: ONE, workshop.photo: ONE}
    assert [host.location for host in registry.hosts()] == [str(moved)]
    operations.revert(registry, CheckpointHost.open(moved), None, ALICE)
    assert digests(moved) == first


def test_a_copied_folder_is_not_taken_for_the_first(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    copied = shutil.copytree(workshop.model, tmp_path / "copied")
    before = digests(copied)
    with workshop.unchanged("refused conflict"), pytest.raises(ConflictError, match="is a copy of") as caught:
        operations.revert(registry, CheckpointHost.open(copied), None, ALICE)
    assert "--out" in caught.value.hint
    assert digests(copied) == before
    operations.revert(registry, workshop.host(), None, ALICE)


def test_a_host_that_another_registry_patched(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    shutil.copytree(workshop.folder / ".rasura", tmp_path / "other" / ".rasura")
    with Registry.open(tmp_path / "other") as other:
        operations.apply(other, workshop.host(), [workshop.dog], ALICE)
        with workshop.unchanged("refused drift"), pytest.raises(DriftError, match="did not apply"):
            operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
        with workshop.unchanged("refused not_applied"), pytest.raises(NotAppliedError):
            operations.revert(registry, workshop.host(), None, ALICE, force=True)
        operations.revert(other, workshop.host(), None, ALICE)
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)


def test_a_base_that_the_registry_does_not_know(workshop: Workshop, tmp_path: Path) -> None:
    """As after a pull: the patch is there and trusted, its base was never added. Nothing may be written."""
    with workshop.open() as registry:
        files, pem = registry.patch_files(workshop.dog), registry.key("alice").pem
    (tmp_path / "alice.pub").write_text(pem)
    with Registry.create(tmp_path / "second") as second:
        trust_file(second, tmp_path / "alice.pub", None, Draft("bob", "", "key.trust", "success"))
        add_signed(second, [SignedPatch(files, "somewhere", Draft("bob", "", "patch.pull", "success"))])
        with workshop.unchanged(), pytest.raises(NotFoundError, match="is not in this registry") as caught:
            operations.apply(second, workshop.host(), [workshop.dog], ALICE)
        assert caught.value.hint.startswith("rasura base add '")
        assert [entry.outcome for entry in second.entries(limit=1)] == ["failed"]


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_patch_is_applied_once_and_reverted_once(workshop: Workshop, registry: Registry) -> None:
    with workshop.unchanged("refused not_applied"), pytest.raises(NotAppliedError, match="nothing is applied"):
        operations.revert(registry, workshop.host(), None, ALICE)
    operations.apply(registry, workshop.host(), [workshop.dog, workshop.dog], ALICE)
    with workshop.unchanged("refused already_applied"), pytest.raises(AlreadyAppliedError):
        operations.apply(registry, workshop.host(), [workshop.photo, workshop.dog], ALICE, strength=Strength.of(2))
    with workshop.unchanged():
        assert not operations.apply(registry, workshop.host(), [workshop.dog], ALICE).changed
    with workshop.unchanged("refused not_applied"), pytest.raises(NotAppliedError):
        operations.revert(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    with workshop.unchanged(), pytest.raises(InputError):
        operations.revert(registry, workshop.host(), [workshop.dog], ALICE, force=True)


def test_interfering_patches(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    with workshop.unchanged("refused check_refused"), pytest.raises(CheckRefusedError) as caught:
        operations.apply(registry, workshop.host(), [workshop.rival], ALICE)
    for part in (workshop.dog[:12], workshop.rival[:12], "two versions of one concept, 'dog'"):
        assert part in caught.value.message
    assert caught.value.hint.startswith("rasura patch ")


@pytest.mark.parametrize("change", ["another seed", "a wider model", "one element"])
def test_another_model_than_the_patch_was_made_for(
    workshop: Workshop,
    registry: Registry,
    tmp_path: Path,
    change: str,
) -> None:
    if change == "one element":
        folder = workshop.model
        touch(workshop, registry)
    else:
        spec = replace(SPEC, seed=1) if change == "another seed" else replace(SPEC, size="small")
        folder = tiny_model(tmp_path / "other", spec)
    before = digests(folder)
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError, match="made for") as caught:
        operations.apply(registry, CheckpointHost.open(folder), [workshop.dog], ALICE)
    assert digests(folder) == before
    near = change == "one element"
    assert ("; the model has 7 of these 8 parameters in common with base tiny" in caught.value.message) == near


def test_another_text_encoder_than_the_patch_was_made_for(workshop: Workshop, registry: Registry) -> None:
    """The projections are the same, but the detectors would look for vectors that this encoder never gives."""
    name = touch(workshop, registry, touched=False)
    before = digests(workshop.model)
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError, match=name):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert digests(workshop.model) == before


def touch(shop: Workshop, registry: Registry, *, touched: bool = True) -> str:
    """Change one byte of a parameter behind the registry's back."""
    host = shop.host()
    names = host_state.list_touched(registry, [shop.dog])
    name = names[0] if touched else next(n for n in host.parameters() if n not in names and n.startswith("text"))
    place = host._layout.place(name, "")
    with (shop.model / place.file).open("r+b") as file:
        file.seek(place.start)
        byte = file.read(1)[0]
        file.seek(place.start)
        file.write(bytes([byte ^ 1]))
    return name


def test_drift_is_refused_and_there_is_a_way_out(workshop: Workshop, registry: Registry) -> None:
    first = workshop.digests()
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    touch(workshop, registry)
    for patches in ([workshop.dog], None):
        with workshop.unchanged("refused drift"), pytest.raises(DriftError, match="changed outside"):
            operations.revert(registry, workshop.host(), patches, ALICE)
    with workshop.unchanged("refused drift"), pytest.raises(DriftError, match="changed outside") as caught:
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    assert caught.value.hint.startswith("rasura patch status --deep --model '")
    operations.revert(registry, workshop.host(), None, ALICE, force=True)
    assert workshop.digests() == first
    assert workshop.entries()[-1].details["force"] == "yes"


def test_a_fresh_copy_in_place_of_the_patched_model(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    """Nobody may undo a takedown by copying the base over it; taking note of it is one command."""
    fresh = shutil.copytree(workshop.model, tmp_path / "fresh")
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    shutil.rmtree(workshop.model)
    shutil.copytree(fresh, workshop.model)
    with workshop.unchanged("refused drift"), pytest.raises(DriftError):
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    assert operations.revert(registry, workshop.host(), None, ALICE, force=True).pristine
    assert digests(workshop.model) == digests(fresh)
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    verify_log(registry)


def test_no_force_makes_originals_out_of_nothing(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    shutil.rmtree(workshop.model / ".rasura-host")
    with workshop.unchanged("refused drift"), pytest.raises(DriftError, match="originals are lost"):
        operations.revert(registry, workshop.host(), None, ALICE, force=True)


def test_a_damaged_original_is_never_put_back(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    kept = next((workshop.model / ".rasura-host" / "originals").iterdir())
    kept.chmod(0o644)
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    with workshop.unchanged("refused digest_mismatch"), pytest.raises(RasuraError, match="original of"):
        operations.revert(registry, workshop.host(), None, ALICE)


def test_a_model_that_may_not_be_written(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    """As in a Hugging Face cache: the weights are links."""
    weights = workshop.model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    with workshop.unchanged("failed unsupported_host"), pytest.raises(RasuraError, match="link") as caught:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert "--out" in caught.value.hint
    out = tmp_path / "out"
    operations.apply_to_folder(registry, workshop.model, [workshop.dog], ALICE, out=out)
    assert stat.S_ISREG((out / "unet" / weights.name).lstat().st_mode)


# --- two at once, and processes that die ----------------------------------------------------------------------------


def test_two_at_once_do_not_mix(workshop: Workshop, registry: Registry) -> None:
    with workshop.host().alone(), workshop.unchanged("refused busy"), pytest.raises(BusyError):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)


def test_processes_that_race_are_applied_one_after_the_other_or_refused(workshop: Workshop) -> None:
    runs = [
        start(["-m", "rasura", "patch", "apply", p, "--model", "the model"], workshop.folder) for p in workshop.all[:2]
    ]
    codes = [run.wait(timeout=300) for run in runs]
    errors = [run.communicate()[1] for run in runs]
    assert set(codes) <= {0, 7}, errors
    winners = {patch for patch, code in zip(workshop.all[:2], codes, strict=True) if code == 0}
    with workshop.open() as registry:
        assert set(host_state.present_set(registry, workshop.host())) == winners
        assert winners
        verify_log(registry)


def test_a_motion_that_died_before_it_wrote_is_ended_as_failed(workshop: Workshop, registry: Registry) -> None:
    begin(workshop, registry)
    first, size = workshop.digests(), len(workshop.entries())
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    ended = workshop.entries()[size]
    assert (ended.outcome, ended.error, ended.closes) == ("failed", "interrupted", size - 1)
    assert (ended.details["settled"], ended.patches) == ("yes", (workshop.dog,))
    assert host_state.present_set(registry, workshop.host()) == {workshop.photo: ONE}
    operations.revert(registry, workshop.host(), None, ALICE)
    assert workshop.digests() == first
    verify_log(registry)


def test_a_motion_that_died_after_it_wrote_is_ended_as_done(workshop: Workshop, registry: Registry) -> None:
    begin(workshop, registry, write=True)
    size = len(workshop.entries())
    receipt = operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    assert receipt.applied == {workshop.dog: Strength(8), workshop.photo: ONE}
    ended = workshop.entries()[size]
    assert (ended.outcome, ended.error, ended.closes) == ("done", None, size - 1)
    verify_log(registry)


def begin(shop: Workshop, registry: Registry, *, write: bool = False) -> None:
    """What a motion does up to the moment at which it dies."""
    host, strength = shop.host(), Strength(8)
    motion = prepare_motion(registry, Glance(host), Stack(), Stack({shop.dog: strength}), DEFAULT_POLICY)
    registry.note(
        Draft(
            "alice",
            "",
            host_state.APPLY,
            "begun",
            (shop.dog,),
            base=motion.record.base,
            host=motion.record.host_id,
            before=motion.before,
            after=motion.after,
            details={"location": host.location, "strength": 8},
        )
    )
    if write:
        host.write(motion.tensors, forget=motion.forget)


DYING = """
import json, os, signal, sys
from pathlib import Path
import torch  # once here, not once a child
from rasura.patches.format import patch as file
from rasura.patches.format.signatures import model_signature as signature
from rasura.patches.format.signatures import signing_key as keys
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal
from rasura.registry.apply import operations as deploy
from rasura.registry.apply.goal import Goal
from rasura.registry.registry import Registry
from rasura.patches.algebra.strength import Strength

class Mortal(RollbackJournal):
    steps, last = 0, None
    def reached(self, step):
        if Mortal.steps == Mortal.last:
            os.kill(os.getpid(), signal.SIGKILL)
        Mortal.steps += 1

class Host(CheckpointHost):
    journal_type = Mortal

class Unheard(Registry):
    def set_host(self, record, entry):
        if Mortal.last == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().set_host(record, entry)

def live(folder, action, patch, last):
    Mortal.last = last
    with Unheard.open(folder) as registry:
        host = Host.open(Path(folder) / "the model")
        if action == "switch":  # in one motion: one out, one in, one at another strength
            ids = sorted(p.patch_id for p in registry.patches() if p.concepts != ("dog",))
            photo, other = sorted(ids, key=lambda p: registry.patch(p).concepts)
            wanted = {photo: Strength(-8), other: Strength(4)}
            deploy.switch(registry, host, Goal("a set", None, wanted), deploy.Actor("mortal"))
        else:
            getattr(deploy, action)(registry, host, [patch], deploy.Actor("mortal"))
    return Mortal.steps

for folder, action, patch, last in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        print("steps", live(folder, action, patch, last), flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
STOPS = (99_999, 0, 6, 21, -1)
"""Steps of the journal at which the process is killed; the first is never reached, -1 is after the last."""


def test_killed_at_any_point_the_model_is_old_or_new(workshop: Workshop, tmp_path: Path) -> None:
    """SIGKILL before the write, at steps inside it, and between the write and its record."""
    places: dict[tuple[str, int], Workshop] = {}
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    before = after = workshop.digests()
    switched = {workshop.photo: Strength(-8), workshop.van_gogh: Strength(4)}
    for action in ("apply", "revert", "switch"):
        folder = workshop.folder.rename(tmp_path / action)  # the copies carry one identity: they must not be found here
        for stop in STOPS:
            places[action, stop] = copy_of(replace(workshop, folder=folder), tmp_path / f"{action} {stop}")
        folder.rename(workshop.folder)
        if action == "apply":
            with workshop.open() as registry:
                operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        if action == "revert":
            after = workshop.digests()
    with workshop.open() as registry:
        operations.switch(registry, workshop.host(), Goal("a set", None, switched), ALICE)
    models = {"apply": (before, after), "revert": (after, before), "switch": (after, workshop.digests())}
    shutil.rmtree(workshop.folder)
    attempts = [(str(place.folder), action, workshop.dog, stop) for (action, stop), place in places.items()]
    process = start(["-c", DYING, json.dumps(attempts)], tmp_path)
    out, err = process.communicate(timeout=300)
    assert out.splitlines().count("-9") == 3 * (len(STOPS) - 1), err
    assert all(int(line.split()[1]) > max(STOPS[1:]) for line in out.splitlines() if line.startswith("steps"))
    for (action, stop), place in places.items():
        written = stop in {-1, STOPS[0]}
        with place.open() as registry:
            host = place.host()
            host_state.settle_motion(registry, host)
            assert place.digests() == models[action][written], (action, stop)
            present = host_state.present_set(registry, host)
            if action == "switch":
                assert present == (switched if written else {workshop.photo: ONE, workshop.dog: ONE})
            else:
                assert (workshop.dog in present) == (written == (action == "apply"))
            assert registry.unfinished() == ()
            verify_log(registry)


@pytest.mark.parametrize(("limit", "code", "entries"), [(600_000, 1, ("begun", "failed host_write")), (100_000, 1, ())])
def test_a_full_disk_changes_nothing(
    workshop: Workshop,
    registry: Registry,
    limit: int,
    code: int,
    entries: tuple[str, ...],
) -> None:
    """No file may be written beyond so many bytes: the weights come to more, and then even the database does."""
    script = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'rasura', *sys.argv[1:]])\n"
    )
    with workshop.unchanged(*entries):
        process = start(["-c", script, "patch", "apply", workshop.dog, "--model", "the model"], workshop.folder)
        _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "error: " in err
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)


def test_interrupted_before_the_last_step_the_next_command_ends_it(workshop: Workshop, registry: Registry) -> None:
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.apply(mortal, workshop.host(), [workshop.dog], ALICE)
    assert len(registry.unfinished()) == 1
    assert not operations.apply(registry, workshop.host(), [workshop.dog], ALICE).changed
    assert registry.unfinished() == ()
    verify_log(registry)


def test_the_same_on_postgresql(workshop: Workshop, postgres_url: str, tmp_path: Path) -> None:
    first = workshop.digests()
    draft = Draft("alice", "", "setup.do", "success")
    with workshop.open() as registry:
        files = [registry.patch_files(patch) for patch in workshop.all]
        (tmp_path / "alice.pub").write_text(registry.key("alice").pem)
        expected = operations.apply(registry, workshop.host(), workshop.all, ALICE).after
        operations.revert(registry, workshop.host(), None, ALICE)
    with Registry.create(f"{postgres_url}&blobs={quote(str(tmp_path / 'home'))}", actor="alice") as registry:
        trust_file(registry, tmp_path / "alice.pub", None, draft)
        add_base(registry, workshop.model, "tiny", draft, silent)
        add_signed(registry, [SignedPatch(each, "a stick", draft) for each in files])
        begin(workshop, registry, write=True)  # and nobody ends it
        receipt = operations.apply(registry, workshop.host(), [workshop.photo, workshop.van_gogh], ALICE)
        assert receipt.applied == {workshop.dog: Strength(8), workshop.photo: ONE, workshop.van_gogh: ONE}
        operations.revert(registry, workshop.host(), [workshop.dog], ALICE)
        assert operations.apply(registry, workshop.host(), [workshop.dog], ALICE).after == expected
        operations.revert(registry, workshop.host(), None, ALICE)
        assert workshop.digests() == first
        verify_log(registry)


# --- somebody else writes to the model -------------------------------------------------------------------------------


class Meddled(CheckpointHost):
    """Somebody who knows nothing of locks changes a weight after it was checked."""

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        meddle(self, next(iter(tensors)))
        super().write(tensors, forget=forget)


class Late(RollbackJournal):
    """…or while its original is being kept."""

    meddled: ClassVar[list[Path]] = []

    def _keep(
        self, change: RangeChange, target: int, at: int, files: WeightFiles, seen: RawValue | None = None
    ) -> None:
        if not self.meddled:
            self.meddled.append(self._state.root / change.file)
            flip(self.meddled[0], change.start)
        super()._keep(change, target, at, files, seen)


class LateHost(CheckpointHost):
    journal_type = Late


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 1]))


def meddle(host: CheckpointHost, name: ParamName) -> None:
    place = host._layout.place(name, "")
    flip(host.path / place.file, place.start)


@pytest.mark.parametrize("kind", [Meddled, LateHost])
def test_what_changed_after_the_check_is_no_original(
    workshop: Workshop,
    registry: Registry,
    kind: type[CheckpointHost],
) -> None:
    """It would be kept as the base's weights, and put back for ever after."""
    first = workshop.digests()
    Late.meddled.clear()
    with pytest.raises(DriftError, match=r"changed (it|them) meanwhile; nothing was written"):
        operations.apply(registry, kind.open(workshop.model), [workshop.dog], ALICE)
    changed = workshop.digests()
    assert len([name for name in first if first[name] != changed[name]]) == 1
    assert first.keys() == changed.keys()  # nothing was kept
    assert [entry.outcome for entry in registry.entries(limit=2)] == ["failed", "begun"]
    with pytest.raises(BaseMismatchError):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    verify_log(registry)


def test_what_changed_in_a_patched_model_is_not_journalled(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    with pytest.raises(DriftError, match="meanwhile"):
        operations.apply(registry, Meddled.open(workshop.model), [workshop.photo], ALICE)
    operations.revert(registry, workshop.host(), None, ALICE, force=True)
    verify_log(registry)
