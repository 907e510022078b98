# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Defaults from `.rasura/config.toml`, reasons that a policy asks for, and hints with what was typed in them."""

from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

MODEL = ("--model", "the model")
ERASE = (
    "erase",
    "--base",
    "tiny",
    "--concept",
    "tree",
    "--anchor",
    "cat",
    "--tokens",
    "last",
    "--rank-rule",
    "count:8",
)


def configure(shop: Workshop, text: str) -> Path:
    path = shop.folder / ".rasura" / "config.toml"
    path.write_text(text)
    return path


def test_defaults_stand_in_for_what_was_not_typed(workshop: Workshop) -> None:
    (workshop.folder / "retain.txt").write_text("painting\ncat\na\nthe\n")
    (workshop.folder / "prompts.txt").write_text("{}\na {}\n")
    rasura("key", "new", "bob", cwd=workshop.folder)
    assert "several keys can sign" in rasura(*ERASE, "--retain", "retain.txt", cwd=workshop.folder).err
    configure(workshop, '[defaults]\nkey = "bob"\nretain = "../retain.txt"\ntemplates = "../prompts.txt"\n')
    deep = workshop.folder / "deep"
    deep.mkdir()
    run = rasura(*ERASE, "--json", cwd=deep)
    assert run.data["config"] == {
        "key": "bob",
        "retain": str(workshop.folder / "retain.txt"),
        "templates": str(workshop.folder / "prompts.txt"),
    }
    with workshop.open() as registry:
        record = registry.patch(run.data["patches"][0]["id"])
        assert registry.key(str(record.key_id)).name == "bob"
    said = rasura(*ERASE, "--key", "alice", cwd=workshop.folder).err.splitlines()[0]
    assert said.startswith("note: from .rasura/config.toml: retain = ")
    assert "bob" not in said
    assert "config" not in rasura("patch", "list", "--json", cwd=workshop.folder).data


def test_a_default_policy_holds_for_motions_and_not_for_plans(workshop: Workshop) -> None:
    rasura("stack", "create", "brand", workshop.dog, workshop.photo, cwd=workshop.folder)
    assert rasura("plan", "--stack", "brand", *MODEL, "-o", "plan.json", cwd=workshop.folder).code == 0
    (workshop.folder / "strict.toml").write_text("[limits]\npair = 1e-12\n")
    configure(workshop, '[defaults]\npolicy = "../strict.toml"\n')
    assert rasura("patch", "apply", workshop.dog, workshop.photo, *MODEL, cwd=workshop.folder).code == 3
    assert rasura("patch", "apply", "plan.json", cwd=workshop.folder).code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[default]\n", "expected the table defaults, got 'default'; did you mean 'defaults'?"),
        ('[defaults]\nretian = "x"\n', "got 'retian'; did you mean 'retain'?"),
        ("[defaults]\nkey = 3\n", "key: expected a text, got 3"),
        ('[defaults]\nkey = ""\n', "key: expected a text, got ''"),
        ("defaults = 3\n", "defaults: expected a table, got 3"),
        ("[defaults\n", "expected TOML"),
        ("\udcff", "expected TOML"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(workshop: Workshop, text: str, said: str) -> None:
    path = workshop.folder / ".rasura" / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    run = rasura(*ERASE, cwd=workshop.folder)
    assert run.code == 1
    assert f"error: {path}: " in run.err
    assert said in run.err


def test_a_policy_may_ask_for_reasons(workshop: Workshop) -> None:
    (workshop.folder / "policy.toml").write_text("[require]\nreason = true\n")
    assert rasura("policy", "set", "policy.toml", cwd=workshop.folder).code == 0
    assert "reason = true" in rasura("policy", "show", cwd=workshop.folder).out
    with workshop.unchanged():
        run = rasura("patch", "apply", workshop.dog, *MODEL, cwd=workshop.folder)
        again = f"hint: rasura patch apply {workshop.dog} --model 'the model' --reason TEXT"
        assert (run.code, run.err.splitlines()[-1]) == (1, again)
        assert rasura("stack", "create", "x", "--reason", " ", cwd=workshop.folder).code == 1
        assert rasura("patch", "apply", workshop.dog, *MODEL, "--dry-run", cwd=workshop.folder).code == 0
    assert rasura("patch", "apply", workshop.dog, *MODEL, "--reason", "t 1", cwd=workshop.folder).code == 0
    assert rasura("undo", "--yes", cwd=workshop.folder).code == 1
    assert rasura("patch", "list", cwd=workshop.folder).code == 0


def test_hints_name_the_model_that_was_typed(workshop: Workshop, tmp_path: Path) -> None:
    run = rasura("patch", "apply", workshop.dog, *MODEL, "--strength", "0", cwd=workshop.folder)
    assert run.err.splitlines()[-1] == "hint: rasura patch revert ID --model 'the model'"
