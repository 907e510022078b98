# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Patches that were made on a folder, applied to the single file of the same weights."""

import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.commandline import rasura
from support.models.single_files import single_file
from support.models.tiny import tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Mortal, Workshop, digests, start, workshop

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import BaseMismatchError, ConflictError, DriftError, ExistsError, RasuraError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import ParamName
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts import host_state
from rasura.registry.apply.status import survey
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


@pytest.fixture
def file(workshop: Workshop) -> Path:
    (workshop.folder / "checkpoints").mkdir()
    return single_file(workshop.model, workshop.folder / "checkpoints/a model.safetensors")


def test_the_file_gets_what_the_folder_gets(workshop: Workshop, registry: Registry, file: Path) -> None:
    first = digests(file.parent)
    expected = operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    receipt = operations.apply(registry, CheckpointHost.open(file), [workshop.photo, workshop.dog], ALICE)
    assert (receipt.before, receipt.after) == (expected.before, expected.after)
    assert receipt.location == str(file)
    goal = Goal("a set", None, {workshop.photo: Strength(-8), workshop.van_gogh: Strength(4)})
    moved = [
        operations.switch(registry, host, goal, ALICE).after for host in (workshop.host(), CheckpointHost.open(file))
    ]
    assert moved[0] == moved[1]
    assert operations.revert(registry, CheckpointHost.open(file), None, ALICE).pristine
    assert digests(file.parent) == first
    verify_log(registry)


def test_stock_diffusers_draws_with_what_was_written(workshop: Workshop, registry: Registry, file: Path) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    operations.apply(registry, CheckpointHost.open(file), [workshop.dog], ALICE)
    given = tiny_pipeline(SPEC)
    found = StableDiffusionPipeline.from_single_file(
        str(file), config=str(workshop.model), vae=given.vae, local_files_only=True, torch_dtype=torch.float16
    )
    folder = CheckpointHost.open(workshop.model)
    unet = folder.read(name for name in folder.parameters() if name.startswith("unet."))
    loaded = found.unet.state_dict()
    assert all(torch.equal(loaded[name.removeprefix("unet.")], tensor) for name, tensor in unet.items())


def test_every_command_takes_a_file(workshop: Workshop, file: Path) -> None:
    first = digests(file.parent)
    where = "--model", file
    assert rasura("patch", "apply", workshop.dog, *where, "--json", cwd=workshop.folder).data["location"] == str(file)
    status = rasura("patch", "status", *where, "--deep", "--json", cwd=workshop.folder)
    assert (status.code, list(status.data["applied"]), status.data["drifted"]) == (0, [workshop.dog], [])
    assert "already in force" in rasura("patch", "apply", workshop.dog, *where, cwd=workshop.folder).out
    out = file.with_name("out.safetensors")
    assert rasura("patch", "apply", workshop.photo, *where, "--out", out, "--json", cwd=workshop.folder).data[
        "applied"
    ] == {workshop.photo: "1"}
    assert rasura("patch", "revert", "--all", "--yes", "--model", out, cwd=workshop.folder).code == 0
    out.unlink()
    with file.open("r+b") as opened:
        place = CheckpointHost.open(file)._layout.place(first_touched(workshop), "")
        opened.seek(place.start)
        opened.write(b"\0\1")
    assert rasura("patch", "status", *where, cwd=workshop.folder).code == 6
    assert rasura("patch", "revert", workshop.dog, *where, cwd=workshop.folder).code == 6
    assert rasura("patch", "revert", "--all", "--yes", "--force", *where, cwd=workshop.folder).code == 0
    assert digests(file.parent) == first
    run = rasura("base", "add", file, "--json", cwd=workshop.folder)
    assert "tokenizer and text encoder" in run.envelope["error"]["message"]
    python, flag, code, *given = shlex.split(run.envelope["error"]["hint"])
    made = "diffusers.StableDiffusionPipeline.from_single_file(sys.argv[1]).save_pretrained(sys.argv[2])"
    assert (python, flag, code, *given) == ("python", "-c", f"import sys, diffusers; {made}", str(file), file.stem)


def first_touched(workshop: Workshop) -> ParamName:
    with workshop.open() as registry:
        return host_state.list_touched(registry, [workshop.dog])[0]


def test_another_file_and_a_fresh_one(workshop: Workshop, registry: Registry, file: Path, tmp_path: Path) -> None:
    fresh = Path(shutil.copy(file, tmp_path / "fresh.safetensors"))
    operations.apply(registry, CheckpointHost.open(file), [workshop.dog], ALICE)
    alone = Path(shutil.copy(file, tmp_path / "alone.safetensors"))  # its originals stay behind
    with pytest.raises(BaseMismatchError):
        operations.apply(registry, CheckpointHost.open(alone), [workshop.photo], ALICE)
    shutil.copy(fresh, file)
    with pytest.raises(DriftError):
        operations.apply(registry, CheckpointHost.open(file), [workshop.photo], ALICE)
    assert operations.revert(registry, CheckpointHost.open(file), None, ALICE, force=True).pristine
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_that_moved_and_one_that_was_copied(workshop: Workshop, registry: Registry, file: Path) -> None:
    state = file.with_name(f".{file.name}.rasura-host")
    operations.apply(registry, CheckpointHost.open(file), [workshop.dog], ALICE)
    moved = file.rename(file.with_name("moved.safetensors"))
    state.rename(file.with_name(f".{moved.name}.rasura-host"))
    operations.apply(registry, CheckpointHost.open(moved), [workshop.photo], ALICE)
    copied = Path(shutil.copy(moved, file.with_name("copied.safetensors")))
    shutil.copytree(file.with_name(f".{moved.name}.rasura-host"), file.with_name(f".{copied.name}.rasura-host"))
    with pytest.raises(ConflictError, match="is a copy of"):
        operations.revert(registry, CheckpointHost.open(copied), None, ALICE)
    operations.revert(registry, CheckpointHost.open(moved), None, ALICE)


def test_links_and_averages_are_copied_out(workshop: Workshop, registry: Registry, tmp_path: Path, file: Path) -> None:
    full = single_file(workshop.model, file.with_name("full.safetensors"), averages=True)
    blob = file.rename(tmp_path / "blob")
    file.symlink_to(blob)
    for source, got in ((file, "link"), (full, "running average")):
        with workshop.unchanged("failed unsupported_host"), pytest.raises(RasuraError, match=got) as caught:
            operations.apply(registry, CheckpointHost.open(source), [workshop.dog], ALICE)
        assert "--out FILE" in caught.value.hint
        out = tmp_path / f"{got}.safetensors"
        operations.apply_to_folder(registry, source, [workshop.dog], ALICE, out=out)
        assert stat.S_ISREG(out.lstat().st_mode)
        assert survey(registry, CheckpointHost.open(out), deep=True, progress=lambda *_: None).drifted == ()


def test_a_copy_that_cannot_be_patched_does_not_stay(workshop: Workshop, registry: Registry, file: Path) -> None:
    before = digests(file.parent)
    with pytest.raises(RasuraError):
        operations.apply_to_folder(
            registry, file, [workshop.dog, workshop.rival], ALICE, out=file.with_name("x.safetensors")
        )
    assert digests(file.parent) == before
    with pytest.raises(ExistsError):
        operations.apply_to_folder(registry, file, [workshop.dog], ALICE, out=workshop.model)


def test_interrupted_before_the_last_step_the_next_command_ends_it(
    workshop: Workshop, registry: Registry, file: Path
) -> None:
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.apply(mortal, CheckpointHost.open(file), [workshop.dog], ALICE)
    operations.apply(registry, CheckpointHost.open(file), [workshop.photo], ALICE)
    host = CheckpointHost.open(file)
    assert host_state.present_set(registry, host) == {workshop.dog: ONE, workshop.photo: ONE}
    assert registry.unfinished() == ()


def test_a_plan_is_stale_when_the_file_changed(workshop: Workshop, registry: Registry, file: Path) -> None:
    assert rasura("stack", "create", "brand", cwd=workshop.folder).code == 0
    assert rasura("stack", "add", "brand", workshop.dog, cwd=workshop.folder).code == 0
    assert rasura("plan", "--stack", "brand", "--model", file, "-o", "plan.json", cwd=workshop.folder).code == 0
    operations.apply(registry, CheckpointHost.open(file), [workshop.photo], ALICE)
    assert rasura("patch", "apply", "plan.json", cwd=workshop.folder).code == 7
    operations.revert(registry, CheckpointHost.open(file), None, ALICE)
    changed = bytearray(file.read_bytes())
    changed[CheckpointHost.open(file)._layout.place(first_touched(workshop), "").start] ^= 1
    file.write_bytes(changed)
    assert rasura("patch", "apply", "plan.json", cwd=workshop.folder).code in {5, 7}


def test_processes_that_race_are_applied_one_after_the_other_or_refused(workshop: Workshop, file: Path) -> None:
    runs = [
        start(["-m", "rasura", "patch", "apply", p, "--model", str(file)], workshop.folder) for p in workshop.all[:2]
    ]
    codes = [run.wait(timeout=300) for run in runs]
    errors = [run.communicate()[1] for run in runs]
    assert set(codes) <= {0, 7}, errors
    winners = {patch for patch, code in zip(workshop.all[:2], codes, strict=True) if code == 0}
    with workshop.open() as registry:
        assert set(host_state.present_set(registry, CheckpointHost.open(file))) == winners
        assert winners
        verify_log(registry)
