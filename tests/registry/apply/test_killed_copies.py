"""`patch apply --out` and `switch --out`, killed: at the target stands the patched model, or nothing."""

import hashlib
import shutil
from pathlib import Path

import pytest
from support.commandline import rasura
from support.crashes.commands import CommandNursery, Typed
from support.models.single_files import single_file
from support.registries.workshop import AWKWARD, Workshop, digests, workshop  # noqa: F401

from rasura.patches.hosts.disk.new_copy import find_dead, new_copy
from rasura.registry.apply.hosts import host_state


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_killed_copy_is_whole_or_absent(
    workshop: Workshop,  # noqa: F811
    command_nursery: CommandNursery,
    kind: str,
) -> None:
    source = "the model" if kind == "folder" else "x.safetensors"
    if kind == "file":
        single_file(workshop.model, workshop.folder / source)
    out = workshop.folder / ("copy" if kind == "folder" else "copy.safetensors")
    command = ("patch", "apply", workshop.dog, "--model", source, "--out", out.name, "--json")
    done = command_nursery.run(Typed(command, str(workshop.folder)))
    assert done.code == 0, done
    patched = _content(out)
    _clear(workshop)
    kills = 0
    for call in [*range(0, done.calls, max(1, done.calls // 4)), *range(done.calls - 9, done.calls, 2)]:
        kills += command_nursery.run(Typed(command, str(workshop.folder), call=call)).killed
        if out.exists():
            assert _content(out) == patched, call
            assert call > done.calls // 2
        report = command_nursery.run(Typed(("doctor", "--json"), str(workshop.folder)))
        assert report.code == 0, (call, report)
        assert not find_dead(beside=workshop.folder), call
        with workshop.open() as registry:
            assert registry.unfinished() == (), (call, out.exists())
        _clear(workshop)
    assert kills > 7


def test_the_next_copy_clears_what_a_dead_one_left(
    workshop: Workshop,  # noqa: F811
    command_nursery: CommandNursery,
) -> None:
    command = ("patch", "apply", workshop.dog, "--model", "the model", "--out", "copy", "--json")
    calls = command_nursery.run(Typed(command, str(workshop.folder))).calls
    _clear(workshop)
    assert command_nursery.run(Typed(command, str(workshop.folder), call=calls - 30)).killed
    with workshop.open() as registry:
        (dead,) = find_dead(beside=workshop.folder)
        assert [entry.action for entry in host_state.find_unborn(registry, dead)] == [host_state.APPLY]
    assert not (workshop.folder / "copy").exists()
    run = rasura(*command, cwd=workshop.folder)
    assert run.code == 0, run
    assert not find_dead(beside=workshop.folder)
    ended = [e.outcome for e in workshop.entries() if e.action == host_state.APPLY][-4:]
    assert ended == ["begun", "failed", "begun", "done"]
    assert rasura("audit", "verify", cwd=workshop.folder).code == 0


def test_a_living_copy_is_left_alone(workshop: Workshop) -> None:  # noqa: F811
    with new_copy(workshop.model, workshop.folder / "copy") as copy:
        assert not (workshop.folder / "copy").exists()
        assert find_dead(beside=workshop.folder) == []
        assert rasura("doctor", "--json", cwd=workshop.folder).data["findings"] == []
        assert copy.path.exists()
    assert digests(workshop.folder / "copy") == workshop.digests()


def test_a_copy_is_not_put_beside_what_is_kept_of_another_model(workshop: Workshop) -> None:  # noqa: F811
    """Its kept originals would be taken for the copy's own."""
    file = single_file(workshop.model, workshop.folder / "x.safetensors")
    assert rasura("patch", "apply", workshop.dog, "--model", file, cwd=workshop.folder).code == 0
    file.rename(workshop.folder / "y.safetensors")
    source = single_file(workshop.model, workshop.folder / "z.safetensors")
    command = ("patch", "apply", workshop.photo, "--model", source, "--out", file, "--json")
    run = rasura(*command, cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (7, "exists")
    assert ".x.safetensors.rasura-host" in run.envelope["error"]["hint"]


def _content(out: Path) -> dict[str, str]:
    """Of what a program reads: weights and configuration, without the host's fresh identity."""
    if out.is_dir():
        return {name: digest for name, digest in digests(out).items() if not name.endswith("host.json")}
    state = out.with_name(f".{out.name}.rasura-host")
    kept = {name: digest for name, digest in digests(state).items() if not name.endswith("host.json")}
    return {out.name: hashlib.sha256(out.read_bytes()).hexdigest()} | kept


def _clear(shop: Workshop) -> None:
    """Away with the copy, as a person would."""
    for path in shop.folder.glob("*copy*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in shop.folder.glob(".copy*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
