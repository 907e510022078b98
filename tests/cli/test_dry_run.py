# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What changes something can be asked what it would do; what cannot says here why not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest
from safetensors.torch import save_file
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

from rasura.cli import cli

WITHOUT: Final = {
    "demo": "works in a new folder with a registry of its own, and takes everything back itself",
    "case open": "writes down what was typed, and nothing else; `case close` ends it",
    "case add": "keeps one file that was named; nothing is changed by it",
    "case close": "`case reopen` takes it back",
    "case reopen": "`case close` takes it back",
    "case hold": "`case release` takes it back",
    "case release": "`case hold` takes it back",
    "audit anchor add": "keeps a copy; nothing is changed by it",
    "audit checkpoint": "writes one new file; without -o it prints, and writes nothing",
    "audit witness": "signs one statement into a new file; nothing of the registry is changed",
    "patch bisect run": "what its second step would be, hangs on what a command says of the model after the first",
}

KEPT: Final = "painting\ncat\na\nthe\n"
"""What the workshop's patches were made with."""
RETAINED: Final = ("--retain", "retain.txt")
REFERENCE: Final = Path(__file__).parents[2] / "examples" / "reference_model"


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
        (("init", "--registry", "elsewhere"), "would make a registry at "),
        (("init", "--upgrade"), "is up to date"),
        (("key", "new", "carol"), "would make key carol; its private half would be "),
        (("audit", "rotate-key"), "would hand the log from rasura/log/"),
        (("key", "trust", "bob.pem"), "would trust bob ("),
        (("key", "revoke", "alice"), "4 patches that it alone signed can be put on no model any more"),
        (("base", "add", "the model"), "is registered already"),
        (("policy", "set", "policy.toml"), "the policy in force would be "),
        (
            ("erase", "--base", "tiny", "--concept", "of", "--anchor", "cat", "--retain", "retain.txt"),
            "dry run: nothing was signed or registered",
        ),
        (
            ("adopt", "theirs.safetensors", "--base", "tiny", "--concept", "of", "--method", "esd", "--take", "whole"),
            "dry run: nothing was signed or registered",
        ),
        (("patch", "rebase", "DOG", *RETAINED), "dry run: nothing was signed or registered"),
        (("patch", "join", "DOG", "PHOTO", *RETAINED), "dry run: nothing was signed or registered"),
        (("patch", "retarget", "DOG", "--base", "tiny", *RETAINED), "dry run: nothing was signed or registered"),
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
    (home / "retain.txt").write_text(KEPT)
    (home / "policy.toml").write_text("[limits]\npair = 0.01\n")
    _write_erased(workshop, home / "theirs.safetensors")
    typed = [{"DOG": workshop.dog, "PHOTO": workshop.photo}.get(word, word) for word in words]
    present = sorted(path.relative_to(home) for path in home.rglob("*") if "cache" not in path.parts)
    with workshop.unchanged():
        run = rasura(*typed, "--dry-run", cwd=home)
        assert run.code == 0, run.err
        assert said in run.out
        assert rasura(*typed, "--dry-run", "--json", cwd=home).envelope["changed"] is False
    assert sorted(path.relative_to(home) for path in home.rglob("*") if "cache" not in path.parts) == present


def _write_erased(workshop: Workshop, file: Path) -> None:
    """Weights as somebody else's method leaves them: some keys and values off."""
    host = workshop.host()
    names = [name for name in host.parameters() if ".attn2.to_v." in name]
    weights = {name: tensor - 0.9 * tensor for name, tensor in host.originals(names).items()}
    save_file({name.removeprefix("unet."): tensor.contiguous() for name, tensor in weights.items()}, file)


@pytest.mark.parametrize("without_key", [False, True], ids=["", "without a key to sign with"])
def test_a_dry_run_that_solves_anew_says_what_would_come(workshop: Workshop, *, without_key: bool) -> None:
    """The very ids that the command then makes; and nobody needs a key to be told them."""
    home = workshop.folder
    (home / "retain.txt").write_text(KEPT)
    words = ("patch", "join", workshop.dog, workshop.photo, *RETAINED)
    keys = sorted((home / ".rasura" / "keys").glob("alice*"))
    hidden = [key.rename(key.with_name(f"hidden {key.name}")) for key in keys if without_key]
    foreseen = rasura(*words, "--dry-run", "--json", cwd=home).data
    for key in hidden:
        key.rename(key.with_name(key.name.removeprefix("hidden ")))
    made = rasura(*words, "--json", cwd=home).data
    assert (foreseen.pop("dry_run"), made.pop("dry_run")) == (True, False)
    assert foreseen == made
    again = rasura(*words, "--dry-run", "--json", cwd=home).data
    assert [each["new"] for each in again["patches"]] == [False, False]


def test_a_bisection_says_what_it_would_try(workshop: Workshop) -> None:
    home = workshop.folder
    rasura("stack", "create", "brand", "--base", "tiny", cwd=home)
    assert rasura("stack", "add", "brand", *workshop.all, cwd=home).code == 0
    start = ("patch", "bisect", "start", "brand", "--model", workshop.model)
    with workshop.unchanged():
        told = rasura(*start, "--dry-run", cwd=home)
        assert (told.code, "the model would have the first 1 of 3 patches" in told.out) == (0, True)
        assert rasura("patch", "bisect", "good", cwd=home).code == 8  # none is going on
    done = rasura(*start, "--json", cwd=home).data
    for verdict in ("good", "bad", "skip", "reset"):
        with workshop.unchanged():
            told = rasura("patch", "bisect", verdict, "--dry-run", cwd=home)
            assert (told.code, "would" in told.out) == (0, True), told.out + told.err
    assert done["testing"] == 1
    after = rasura("patch", "bisect", "good", "--json", cwd=home).data
    assert after["testing"] == 2


def test_an_evaluation_says_how_much_it_would_draw(workshop: Workshop) -> None:
    home = workshop.folder
    words = ("--patch", workshop.dog, "--judge", REFERENCE, "--prompts", "asked.jsonl", "--dry-run")
    (home / "asked.jsonl").write_text('{"prompt": "a dog", "seed": 3, "group": "forget", "object": "dog"}\n')
    with workshop.unchanged():
        told = rasura("evaluate", "--base", "tiny", *words, cwd=home)
        assert told.code == 0, told.err
        assert "would draw at most 2 pictures" in told.out
        (home / "asked.jsonl").write_text('{"prompt": "a dog", "seed": 3, "group": "forget", "object": "unheard"}\n')
        wrong = rasura("evaluate", "--base", "tiny", *words, "--json", cwd=home)
        assert (wrong.code, wrong.envelope["error"]["code"]) == (1, "input")


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
