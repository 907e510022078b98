# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""The log out of the registry, typed: log, show, prove, checkpoint, export, verify FILE."""

import json
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop


def typed(shop: Workshop, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura(*arguments, cwd=shop.folder)
    assert run.code == code, run.out + run.err
    return run


def vkey(shop: Workshop) -> str:
    return str(rasura("key", "list", "--json", cwd=shop.folder).data["log_key"])


def test_a_log_is_shown_by_what_one_looks_for(workshop: Workshop) -> None:
    typed(workshop, "patch", "apply", workshop.dog, "--model", "the model", "--actor", "bob")
    shown = typed(workshop, "audit", "log", "--by", "bob", "--type", "patch").out.splitlines()
    assert [row.split()[:1] for row in shown] == [["#"], ["8"], ["7"]]
    assert typed(workshop, "audit", "log", "--concept", "photo", "--oldest").out.count("\n") == 2
    assert typed(workshop, "audit", "log", "--by", "carol").out == "no entries like that\n"
    about = rasura("audit", "log", "--model", workshop.folder / "the model", "--json", cwd=workshop.folder).data
    assert [entry["index"] for entry in about["entries"]] == [8, 7]
    assert "expected 2026-11-29" in typed(workshop, "audit", "log", "--since", "soon", code=1).err


def test_one_entry_is_shown_whole(workshop: Workshop) -> None:
    out = typed(workshop, "audit", "show", "3").out
    assert workshop.dog in out
    found = rasura("audit", "show", "3", "--json", cwd=workshop.folder).data
    assert json.loads(found["bytes"])["index"] == found["entry"]["index"] == 3
    missing = typed(workshop, "audit", "show", "99", code=8)
    assert "entries 0 to 6" in missing.err


def test_what_is_taken_out_is_checked_where_there_is_no_registry(workshop: Workshop, tmp_path: Path) -> None:
    key, away = vkey(workshop), tmp_path / "away"
    away.mkdir()
    typed(workshop, "audit", "checkpoint", "-o", away / "kept")
    typed(workshop, "patch", "apply", workshop.dog, "--model", "the model")
    typed(workshop, "audit", "prove", "9", "-o", away / "proof")
    typed(workshop, "audit", "export", "-o", away / "whole")
    typed(workshop, "audit", "export", "--concept", "dog", "--checkpoint", away / "kept", "-o", away / "part")
    for file, count in (("proof", 1), ("whole", 10), ("part", 4)):
        found = rasura("audit", "verify", file, "--vkey", key, "--json", cwd=away).data
        assert (found["entries"], found["size"], found["pinned"], found["key"]) == (count, 10, True, key)
    said = rasura("audit", "verify", "part", "--vkey", key, "--checkpoint", "kept", cwd=away)
    assert "it continues the checkpoint of 7 entries that was kept" in said.out
    assert said.err == ""
    assert "no key was given from outside" in rasura("audit", "verify", "whole", cwd=away).err
    assert rasura("audit", "verify", "proof", cwd=away).code == 4
    forged = (away / "whole").read_bytes().replace(b"patch.apply", b"patch.erase", 1)
    (away / "forged").write_bytes(forged)
    assert rasura("audit", "verify", "forged", "--vkey", key, cwd=away).code == 4


def test_lines_go_to_standard_output_or_to_a_file(workshop: Workshop) -> None:
    printed = typed(workshop, "audit", "export", "--format", "jsonl").out
    assert [json.loads(line)["index"] for line in printed.splitlines()] == list(range(7))
    typed(workshop, "audit", "export", "--format", "jsonl", "-o", "log.jsonl")
    assert (workshop.folder / "log.jsonl").read_text() == printed
    assert typed(workshop, "audit", "checkpoint").out.splitlines()[1] == "7"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "--format", "cef", "--checkpoint", "x"), "only a bundle proves"),
        (("export", "--by", "nobody"), "no entry of the log is like that"),
        (("export", "-o", "the model"), "is something else"),
        (("export", "-o", "nowhere/file"), "cannot write"),
        (("verify", "nowhere"), "does not exist"),
        (("verify", "the model"), "expected a regular file"),
        (("verify", "the model/model_index.json"), "expected a bundle or a proof"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    workshop: Workshop, arguments: tuple[str, ...], said: str
) -> None:
    before = sorted(path.name for path in workshop.folder.iterdir())
    run = rasura("audit", *arguments, cwd=workshop.folder)
    assert run.code not in {0, 70}
    assert said in run.err
    assert sorted(path.name for path in workshop.folder.iterdir()) == before


def test_a_file_that_another_command_is_for_says_which(workshop: Workshop, tmp_path: Path) -> None:
    key, away = vkey(workshop), tmp_path / "away"
    away.mkdir()
    typed(workshop, "audit", "export", "-o", away / "bundle.jsonl")
    typed(workshop, "audit", "checkpoint", "-o", away / "kept.txt")
    typed(workshop, "patch", "apply", workshop.dog, "--model", "the model")
    typed(workshop, "attest", "--model", "the model", "-o", away / "att.json")
    typed(workshop, "key", "export", "alice", "-o", away / "alice.pem")
    whole = (away / "bundle.jsonl").read_bytes()
    (away / "empty").write_bytes(b"")
    (away / "cut").write_bytes(whole[: len(whole) // 2])
    (away / "lines").write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    for name, said in (
        ("empty", "is empty"),
        ("cut", "is cut off"),
        ("lines", "is cut off"),
        ("att.json", "is an attestation of a model"),
        ("kept.txt", "is a checkpoint"),
    ):
        run = rasura("audit", "verify", away / name, "--json", cwd=workshop.folder)
        assert (run.code, said in run.envelope["error"]["message"]) == (4, True), run.out
    assert rasura(*run.hint, cwd=workshop.folder).code == 0  # of the checkpoint
    bundle = rasura("verify", "bundle.jsonl", "--vkey", key, "--json", cwd=away)
    assert bundle.hint == ["audit", "verify", "bundle.jsonl", "--vkey", key]
    assert rasura(*bundle.hint, cwd=away).code == 0
    statement = rasura("verify", "att.json", "--key", "alice.pem", "--json", cwd=away)
    assert "missing are --model and --attestation" in statement.envelope["error"]["message"]
    words = [str(workshop.model) if word == "MODEL" else word for word in statement.hint]
    assert rasura(*words, cwd=away).code == 0
    for name in ("kept.txt", "empty"):
        assert rasura("verify", name, cwd=away).code == 4
    missing = rasura("audit", "verify", "bundle.jsonl", "--vkey", "log.key", cwd=away)
    assert (missing.code, "there is no such file" in missing.err) == (8, True)
