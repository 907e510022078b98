# ruff: noqa: F811 - a test asks for a fixture by its name
"""Pipes, devices and endless files where a file of ours or of the user's is expected: a sentence, at once."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop  # noqa: F401

from rasura.patches._io.files import check_regular_files
from rasura.patches.errors import FormatError

KINDS = ("pipe", "device", "endless", "folder")
SECONDS = 120  # on a slow machine; who waits for a pipe waits for ever


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Nobody waits for ever."""
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


def put(path: Path, kind: str) -> None:
    """Something else in a file's place; endless files are sparse, so that they cost nothing."""
    if path.exists() or path.is_symlink():
        path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "endless":
            path.touch()
            os.truncate(path, 2**42)
        case _:
            path.mkdir()


def typed(shop: Workshop, *arguments: str | Path) -> str:
    """The code of the error that the command ends with, which is one of ours."""
    run = rasura(*arguments, "--json", cwd=shop.folder)
    error = run.envelope["error"]
    assert error is not None, run
    assert error["code"] != "internal", run.err
    return str(error["code"])


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_folder_of_kept_originals(workshop: Workshop, kind: str) -> None:
    model = ("--model", "the model")
    assert rasura("patch", "apply", workshop.dog, *model, cwd=workshop.folder).code == 0
    state = workshop.model / ".rasura-host"
    whole = shutil.copytree(state, workshop.folder / "state")
    original = next((state / "originals").iterdir())
    for path in (state / "host.json", original):
        put(path, kind)
        for command in (("patch", "status"), ("patch", "apply", workshop.photo), ("patch", "revert", workshop.dog)):
            assert typed(workshop, *command, *model) in {"format", "host", "drift"}, (path, command)
        assert rasura("doctor", "--json", cwd=workshop.folder).envelope["error"] is None
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copyfile(whole / path.relative_to(state), path)
    put(state / "journal", kind)
    assert typed(workshop, "patch", "status", *model) in {"format", "host", "digest_mismatch", "host_write"}
    (state / "journal").rmdir() if kind == "folder" else (state / "journal").unlink()
    assert rasura("patch", "revert", "--all", "--yes", *model, cwd=workshop.folder).code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_what_a_person_names(workshop: Workshop, kind: str) -> None:
    put(workshop.folder / "strange", kind)
    erase = ("erase", "--base", "tiny", "--concept", "dog")
    (workshop.folder / "retain.txt").write_text("cat\n")
    for command in (
        (*erase, "--retain", "strange"),
        (*erase, "--retain", "retain.txt", "--templates", "strange"),
        ("key", "trust", "strange"),
        ("bundle", "add", "strange"),
        ("patch", "apply", workshop.dog, "--model", "the model", "--policy", "strange"),
        ("patch", "apply", workshop.dog, "--model", "strange"),
        ("evaluate", workshop.dog, "--base", "tiny", "--prompts", "strange", "--judge", "strange"),
        ("policy", "set", "strange"),
    ):
        assert typed(workshop, *command) != "internal", command


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_registry(workshop: Workshop, kind: str) -> None:
    home = workshop.folder / ".rasura"
    for name in ("config.toml", "keys/alice.signer.pem", "keys/log.pem", "keys/last_signed"):
        path = home / name
        kept = path.read_bytes() if path.exists() else None
        put(path, kind)
        (workshop.folder / "retain.txt").write_text("painting\ncat\n")
        command = ("erase", "--base", "tiny", "--concept", "dog", "--retain", "retain.txt")
        assert typed(workshop, *command) in {"registry", "format", "audit", "input"}, name
        path.rmdir() if kind == "folder" else path.unlink()
        if kept is not None:
            path.write_bytes(kept)
            path.chmod(0o600)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_in_a_folder_that_a_library_reads(tmp_path: Path, kind: str) -> None:
    """Where libraries read files by themselves, they are looked at before."""
    (tmp_path / "config.json").write_text("{}")
    check_regular_files(tmp_path)
    put(tmp_path / "vocab.json", kind)
    with pytest.raises(FormatError, match="a pipe, socket or device"):
        check_regular_files(tmp_path)
