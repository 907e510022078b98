# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What processes that died left behind: found, named, and put right; and nothing of what the living are doing."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.commandline import rasura
from support.crashes.crashing import NAMES, Attempt, Nursery, values
from support.models.single_files import single_file
from support.registries.workshop import ALICE, Mortal, Workshop, digests, silent, start, workshop

from rasura.patches._io.file_lock import locked
from rasura.patches.algebra.strength import ONE
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts import host_state
from rasura.registry.doctor import Finding, examine
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks.bisection import bisect, bisect_state

OLD = (datetime.now(UTC) - timedelta(hours=2)).timestamp()


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def look(registry: Registry, *models: Path, dry_run: bool = False) -> list[tuple[str, str]]:
    return [(f.kind, f.outcome) for f in examine(registry, models, ALICE, dry_run=dry_run, progress=silent)]


def test_nothing_to_repair(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    with workshop.unchanged():
        assert look(registry) == []
        assert look(registry, workshop.model) == []
    run = rasura("doctor", cwd=workshop.folder)
    assert (run.code, run.out) == (0, "nothing to repair\n")


@pytest.mark.parametrize("single", [False, True], ids=["folder", "file"])
def test_a_half_written_model(
    single: bool, workshop: Workshop, registry: Registry, nursery: Nursery, tmp_path: Path
) -> None:
    model = workshop.model
    if single:
        (tmp_path / "checkpoints").mkdir()
        model = single_file(model, tmp_path / "checkpoints/x.safetensors")
    place = model.parent if single else model
    weights = model.name if single else "text_encoder/model.safetensors"
    before = digests(place)
    for stop in range(100):
        assert nursery.run(Attempt(str(model), "doubled", stop=stop)).killed
        state = place / (f".{model.name}.rasura-host" if single else ".rasura-host")
        if (state / "journal").exists() and digests(place)[weights] != before[weights]:
            break
    torn = digests(place)
    assert look(registry, model, dry_run=True) == [("half-written", "repairable")]
    assert digests(place) == torn
    assert look(registry, model) == [("half-written", "repaired")]
    assert digests(place) == before
    assert look(registry, model) == []
    assert workshop.entries()[-1].details == {"half-written": 1}
    verify_log(registry)


def test_a_damaged_journal_is_beyond_help(workshop: Workshop, registry: Registry) -> None:
    state = workshop.model / ".rasura-host"
    state.mkdir()
    (state / "journal").write_bytes(b"rasura journal 1 and no more")
    with workshop.unchanged():
        assert look(registry, workshop.model) == [("drifted", "hopeless")]
    assert rasura("doctor", "--model", workshop.model, cwd=workshop.folder).code == 6


def test_a_motion_without_an_end(workshop: Workshop, registry: Registry) -> None:
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.apply(mortal, workshop.host(), [workshop.dog], ALICE)
    with workshop.unchanged():
        assert look(registry, dry_run=True) == [("unfinished", "repairable")]
    assert look(registry) == [("unfinished", "repaired")]
    assert registry.unfinished() == ()
    assert host_state.present_set(registry, workshop.host()) == {workshop.dog: ONE}
    assert look(registry) == []
    verify_log(registry)


def test_what_the_living_do_is_left_alone(workshop: Workshop, registry: Registry) -> None:
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.apply(mortal, workshop.host(), [workshop.dog], ALICE)
    with workshop.unchanged():
        with workshop.host().alone():
            assert look(registry) == [("busy", "left")]
        with locked(workshop.model, exclusive=True):
            assert look(registry) == [("busy", "left")]


def test_drift_is_said_and_left_to_a_person(workshop: Workshop, registry: Registry) -> None:
    first = workshop.digests()
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    host = workshop.host()
    name = host_state.list_touched(registry, [workshop.dog])[0]
    host.write({name: host.read([name])[name] * 2})
    with workshop.unchanged():
        run = rasura("doctor", "--json", cwd=workshop.folder)
    (finding,) = json.loads(run.out)["data"]["findings"]
    assert (run.code, finding["kind"], finding["outcome"]) == (6, "drifted", "hopeless")
    assert finding["hint"].startswith("rasura patch revert --all --force --model '")
    operations.revert(registry, workshop.host(), None, ALICE, force=True)
    assert workshop.digests() == first


def test_originals_that_nothing_needs(workshop: Workshop, registry: Registry) -> None:
    first = workshop.digests()
    host = workshop.host()
    original = host.originals(NAMES)
    host.write(values(host, "doubled"))
    with workshop.unchanged():
        assert look(registry, workshop.model) == [("drifted", "hopeless")]  # who knows what wrote that
    host.write(original)  # and forgets none of them
    assert workshop.digests() != first
    assert look(registry, workshop.model, dry_run=True) == [("kept", "repairable")]
    assert look(registry, workshop.model) == [("kept", "repaired")]
    assert workshop.digests() == first


def test_a_model_that_is_gone(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    file = single_file(workshop.model, workshop.folder / "x.safetensors")
    operations.apply(registry, CheckpointHost.open(file), [workshop.dog], ALICE)
    file.rename(tmp_path / "x.safetensors")
    (finding,) = examine(registry, [], ALICE, dry_run=False, progress=silent)
    assert (finding.kind, finding.outcome) == ("missing", "left")
    assert ".x.safetensors.rasura-host" in finding.hint
    (tmp_path / "x.safetensors").rename(file)
    assert look(registry) == []


def test_temporary_files_and_copies(workshop: Workshop, registry: Registry) -> None:
    home = workshop.folder / ".rasura"
    left = [
        home / ".incoming-abc",
        home / "blobs/00/.incoming-def",
        workshop.folder / ".copy.01234567.partial",
        workshop.folder / ".rasura-new-abcdefgh",
        workshop.folder / ".x.safetensors.89abcdef.partial",
    ]
    kept = [home / "note.txt", workshop.folder / "x.partial", workshop.folder / ".rasura-new-x.y"]
    for path in [*left, *kept]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    for path in (left[2], left[3]):
        path.unlink()
        (path / "unet").mkdir(parents=True)
        (path / "unet/model.safetensors").write_bytes(b"half")
    assert look(registry, workshop.model) == []  # a living process may be writing them
    for path in [*left, *kept, *(p for folder in left[2:4] for p in folder.rglob("*"))]:
        os.utime(path, (OLD, OLD))
    assert look(registry, workshop.model, dry_run=True) == [("leftover", "repairable")] * 5
    assert look(registry, workshop.model) == [("leftover", "repaired")] * 5
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    assert look(registry) == []
    verify_log(registry)


@pytest.mark.parametrize("way", ["temporary", "private"])
def test_half_a_key_goes_as_soon_as_its_writer_is_dead(workshop: Workshop, registry: Registry, way: str) -> None:
    keys = workshop.folder / ".rasura/keys"
    program = {
        "temporary": "from rasura.registry._storage.files.durable_files import temporary as w\n"
        "with w(Path(sys.argv[1]), b'half', mode=0o600): stop()\n",
        "private": "from rasura.patches.format.signatures.signing_key import PrivateKey, write_private as w\n"
        "os.fsync = stop\n"
        "w(Path(sys.argv[1]) / 'new.pem', PrivateKey.generate())\n",
    }
    before = "import os, sys, time\nfrom pathlib import Path\n"
    before += "def stop(*_):\n    print('there', flush=True)\n    time.sleep(600)\n"
    process = start(["-c", before + program[way], str(keys)], workshop.folder)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        (half,) = keys.glob(".incoming-*")
        for path in keys.glob(".incoming-*"):
            os.utime(path, (OLD + 7000, OLD + 7000))  # some minutes ago
        assert look(registry) == []  # its writer lives
    finally:
        process.kill()
        process.communicate()
    assert half.exists()
    assert look(registry, dry_run=True) == [("leftover", "repairable")]
    assert look(registry) == [("leftover", "repaired")]
    assert not half.exists()
    half.write_bytes(b"half")  # a process that has not locked it yet
    assert look(registry) == []


def started(workshop: Workshop, registry: Registry) -> bisect_state.Bisection:
    for command in (("create", "brand"), ("add", "brand", *workshop.all)):
        assert rasura("stack", *command, cwd=workshop.folder).code == 0
    return bisect.start(registry, "brand", workshop.model, ALICE).state


def test_a_bisection_that_died(workshop: Workshop, registry: Registry) -> None:
    first = workshop.digests()
    state = started(workshop, registry)
    assert look(registry) == []
    bisect_state.save_bisection(
        registry, bisect_state.Bisection.from_bytes(state.to_bytes().replace(b'"reached":true', b'"reached":false'))
    )
    assert look(registry, dry_run=True) == [("bisection", "repairable")]
    assert look(registry) == [("bisection", "repaired")]  # after its step
    assert bisect_state.load_bisection(registry) == state
    bisect.judge(registry, "good", ALICE)
    operations.switch(registry, workshop.host(), Goal("something else", None, {workshop.van_gogh: ONE}), ALICE)
    state = bisect_state.load_bisection(registry)
    bisect_state.save_bisection(
        registry, bisect_state.Bisection.from_bytes(state.to_bytes().replace(b'"reached":true', b'"reached":false'))
    )
    assert look(registry) == [("bisection", "repaired")]  # in the middle of it
    assert workshop.digests() == first
    assert look(registry) == []


def test_a_bisection_without_its_model_or_with_a_broken_file(workshop: Workshop, registry: Registry) -> None:
    started(workshop, registry)
    shutil.rmtree(workshop.model)
    assert ("bisection", "repaired") in look(registry)
    file = workshop.folder / ".rasura" / "bisect.json"
    assert not file.exists()
    file.write_text("{}")
    (finding,) = [f for f in examine(registry, [], ALICE, dry_run=False, progress=silent) if f.kind == "bisection"]
    assert finding == Finding("bisection", str(file), finding.said, "left", f"rm '{file}'")


@pytest.mark.parametrize("far", [False, True], ids=["beside", "elsewhere"])
def test_a_model_that_was_moved(far: bool, workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    """It is said where it lies, or what to type; then the registry knows, and undo, status and the log go on."""
    home, model = workshop.folder, workshop.model
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    rasura("stack", "create", "prod", "--base", "tiny", cwd=home)
    rasura("stack", "add", "prod", workshop.dog, cwd=home)
    place = (tmp_path / "elsewhere" if far else home) / "moved here"
    place.parent.mkdir(exist_ok=True)
    model.rename(place)
    hint = "rasura doctor --model " + ("WHERE" if far else f"'{place}'")
    for words in (("stack", "show", "prod"), ("host", "list"), ("status",)):
        said = rasura(*words, cwd=home).out
        assert hint in said, said
        assert ("it was moved to" in said) is not far
    assert "open: " in rasura("status", cwd=home).out
    told = [("missing", "left")] if far else [("moved", "repairable")]
    assert look(registry, dry_run=True) == told
    if far:
        assert hint in rasura("doctor", cwd=home).out
    named = [place] if far else []
    assert look(registry, *named) == [("moved", "repaired")]
    assert look(registry) == []
    assert [host.location for host in registry.hosts()] == [str(place)]
    (entry,) = registry.entries(limit=1)
    assert (entry.action, entry.details["from"], entry.details["location"]) == ("host.move", str(model), str(place))
    assert str(place) in rasura("stack", "show", "prod", cwd=home).out
    assert "nothing is open" in rasura("status", cwd=home).out
    assert "found again" in rasura("log", "-n", "1", cwd=home).out
    undone = rasura("undo", "--model", place, "--yes", cwd=home)
    assert undone.code == 0, undone.err
    assert registry.hosts()[0].applied == {}
    assert verify_log(registry).size == registry.head().size


def test_a_copy_is_not_taken_for_the_model_that_was_moved(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    copy = shutil.copytree(workshop.model, workshop.folder / "copy")
    assert look(registry) == []
    assert look(registry, Path(copy)) == [("drifted", "hopeless")]
    assert [host.location for host in registry.hosts()] == [str(workshop.model)]
