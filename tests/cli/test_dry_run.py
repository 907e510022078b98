# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What changes something can be asked what it would do; what cannot says here why not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

from rasura.cli import cli

WITHOUT: Final = {
    "init": "makes a new folder, and changes nothing that is there",
    "demo": "works in a new folder with a registry of its own",
    "key new": "makes a key under a new name, and changes nothing that is there",
    "audit rotate-key": "it says nothing but what it does; who pinned the old key verifies on",
    "adopt": "what it makes is applied nowhere; its table says all, and patch retire puts it away",
    "patch join": "as adopt",
    "patch rebase": "as adopt",
    "patch retarget": "as adopt",
    "patch bisect start": "a bisection is made of motions that it takes back: reset gives the model back what it had",
    "patch bisect good": "as patch bisect start",
    "patch bisect bad": "as patch bisect start",
    "patch bisect skip": "as patch bisect start",
    "patch bisect run": "as patch bisect start",
    "patch bisect reset": "as patch bisect start",
    "evaluate": "draws, and adds a record beside others; no model and no patch is changed",
    "push": "what a dry run would say, the Hub alone knows",
    "pull": "as push; what comes is verified, and applied nowhere",
}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, (*path, name))


def test_every_command_that_changes_something_can_be_asked_first() -> None:
    options = {path: {o for p in command.params for o in p.opts} for path, command in leaves(cli)}
    mutating = {path for path, known in options.items() if "--reason" in known}
    assert {path for path in mutating if "--dry-run" not in options[path]} == set(WITHOUT)
    assert {path for path, known in options.items() if "--dry-run" in known} <= mutating | {"gc"}
    assert all(WITHOUT.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("key", "trust", "bob.pem"), "would trust bob ("),
        (("key", "revoke", "alice"), "4 patches that it alone signed can be put on no model any more"),
        (("base", "add", "the model"), "is registered already"),
        (("policy", "set", "policy.toml"), "the policy in force would be "),
        (
            ("erase", "--base", "tiny", "--concept", "of", "--anchor", "cat", "--retain", "retain.txt"),
            "dry run: nothing was signed or registered",
        ),
        (("bundle", "add", "dog.rsb"), "was here already"),
        (("patch", "retire", "DOG"), "would be retired"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_nothing_is_written(workshop: Workshop, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    home = workshop.folder
    other = tmp_path / "other"
    other.mkdir()
    rasura("init", cwd=other)
    rasura("key", "new", "bob", cwd=other)
    rasura("key", "export", "bob", "-o", home / "bob.pem", cwd=other)
    rasura("bundle", "make", workshop.dog, "-o", "dog.rsb", cwd=home)
    (home / "retain.txt").write_text("the\npainting\n")
    (home / "policy.toml").write_text("[limits]\npair = 0.01\n")
    typed = [workshop.dog if word == "DOG" else word for word in words]
    with workshop.unchanged():
        run = rasura(*typed, "--dry-run", cwd=home)
        assert run.code == 0, run.err
        assert said in run.out
        assert rasura(*typed, "--dry-run", "--json", cwd=home).envelope["changed"] is False


def test_a_dry_run_of_an_erasure_needs_no_key_and_no_registered_base(workshop: Workshop, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    rasura("init", cwd=home)
    (home / "retain.txt").write_text("the\npainting\n")
    words = (
        "erase",
        "--base",
        workshop.model,
        "--concept",
        "of",
        "--anchor",
        "cat",
        "--retain",
        "retain.txt",
        "--dry-run",
    )
    made = rasura(*words, "--json", cwd=home).data
    assert [(p["concept"], p["new"]) for p in made["patches"]] == [("of", True)]
    assert rasura("base", "list", "--json", cwd=home).data["bases"] == []
    assert len(rasura("audit", "log", "--json", cwd=home).data["entries"]) == 1
    assert rasura(*words[:2], "nowhere", *words[3:], cwd=home).code == 8
    assert len(rasura("audit", "log", "--json", cwd=home).data["entries"]) == 1


def test_a_dry_run_refuses_what_the_command_would_refuse(workshop: Workshop) -> None:
    rasura("key", "export", "alice", "-o", "alice.pem", cwd=workshop.folder)
    rasura("key", "revoke", "alice", "--yes", cwd=workshop.folder)
    with workshop.unchanged():
        trust = rasura("key", "trust", "alice.pem", "--dry-run", "--json", cwd=workshop.folder)
        assert (trust.code, trust.envelope["error"]["code"]) == (4, "revoked_key")
        again = rasura("key", "revoke", "alice", "--dry-run", cwd=workshop.folder)
        assert "was revoked before" in again.out
