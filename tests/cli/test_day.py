# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What people type without thinking: status, log, undo, and the question before something is un-erased."""

import io
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop

from rasura.commands._shared import output
from rasura.commands._shared.views import format_number
from rasura.registry.erase.others import find_others

MODEL = ("--model", "the model")


def typed(shop: Workshop, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura(*arguments, cwd=shop.folder)
    assert run.code == code, run.out + run.err
    return run


def data(shop: Workshop, *arguments: str | Path, changed: bool) -> dict[str, Any]:
    run = rasura(*arguments, "--json", cwd=shop.folder)
    assert run.code == 0, run.out
    assert run.envelope["changed"] is changed, arguments
    return run.data


def test_status_of_an_empty_registry(tmp_path: Path) -> None:
    rasura("init", cwd=tmp_path)
    run = rasura("status", cwd=tmp_path)
    assert run.code == 0
    assert "bases: none yet (rasura base add MODEL)" in run.out
    assert run.out.splitlines()[-1] == "nothing is open"
    assert rasura("host", "list", cwd=tmp_path).out == "no models: nothing was ever applied\n"
    assert "made the registry" in rasura("log", cwd=tmp_path).out


def test_status_says_what_is_in_force_where(workshop: Workshop) -> None:
    typed(workshop, "stack", "create", "brand", workshop.dog, f"{workshop.photo}=0.5")
    typed(workshop, "patch", "switch", "brand", *MODEL)
    with workshop.unchanged():
        out = typed(workshop, "status").out
        found = data(workshop, "status", changed=False)
    assert "patches: 4 (2 in force)" in out
    row = next(line for line in out.splitlines() if line.startswith("the model"))
    assert row.split()[2:7] == ["dog,", "photo=0.5", "recorded", "tiny", row.split()[6]]
    assert next(line for line in out.splitlines() if line.startswith("brand")).split() == ["brand", "2", "the", "model"]
    (host,) = found["hosts"]
    assert host["applied"] == {workshop.dog: "1", workshop.photo: "0.5"}
    assert host["stacks"] == ["brand"]
    assert found["patches"]["in_force"] == sorted([workshop.dog, workshop.photo])


def test_status_looks_when_asked(workshop: Workshop) -> None:
    typed(workshop, "patch", "apply", workshop.dog, *MODEL)
    assert "as written" in typed(workshop, "status", "--look").out
    host = workshop.host()
    name = min(host.kept())
    host.write({name: host.read([name])[name] * 2})
    assert "changed" in typed(workshop, "status", "--look", code=6).out
    assert "changed" in typed(workshop, "host", "list", "--look", code=6).out
    shutil.move(workshop.model, workshop.folder / "elsewhere")
    assert "nothing lies there any more" in typed(workshop, "host", "list").out


def test_the_log_is_a_line_an_event(workshop: Workshop) -> None:
    typed(workshop, "patch", "apply", workshop.dog, *MODEL, "--reason", "ticket 12")
    lines = typed(workshop, "log", "-n", "1").out.splitlines()
    assert len(lines) == 2
    assert "applied dog @ the model" in lines[1]
    assert lines[1].endswith("ticket 12")
    typed(workshop, "patch", "apply", workshop.rival, *MODEL, code=3)
    assert "refused (check_refused): patch.apply" in typed(workshop, "log", *MODEL, "--patch", workshop.rival).out + (
        typed(workshop, "log", "--patch", workshop.rival).out
    )
    events = data(workshop, "log", "--model", "the model", changed=False)["events"]
    assert [event["action"] for event in events] == ["patch.apply"]
    typed(workshop, "log", "--model", "no model", code=8)


# --- undo -----------------------------------------------------------------------------------------------------------


def test_undo_takes_the_last_motion_back_and_the_next_one_takes_that_back(workshop: Workshop) -> None:
    before = workshop.digests()
    typed(workshop, "patch", "apply", workshop.dog, workshop.photo, *MODEL)
    with_two = workshop.digests()
    typed(workshop, "patch", "revert", workshop.photo, *MODEL)
    with workshop.unchanged():
        would = typed(workshop, "undo", "--dry-run").out
    assert f"+ photo ({workshop.photo[:12]}, strength 1)" in would
    found = data(workshop, "undo", "--reason", "a mistake", changed=True)  # erases more: nobody is asked
    assert found["added"] == {workshop.photo: "1"}
    assert workshop.digests() == with_two
    entry = workshop.entries()[-1]
    assert (entry.action, entry.outcome, entry.reason) == ("patch.switch", "done", "a mistake")
    assert entry.details["undoes"] == found["undoes"]
    typed(workshop, "undo", *MODEL, code=2)  # would un-erase
    assert workshop.digests() == with_two
    typed(workshop, "undo", *MODEL, "--yes")
    typed(workshop, "undo", *MODEL)
    assert workshop.digests() == with_two
    typed(workshop, "patch", "revert", "--all", "--yes", *MODEL)
    assert workshop.digests() == before
    typed(workshop, "undo")
    assert workshop.digests() == with_two
    typed(workshop, "audit", "verify")


def test_undo_back_to_nothing(workshop: Workshop) -> None:
    before = workshop.digests()
    typed(workshop, "patch", "apply", workshop.dog, *MODEL, "--strength", "0.5")
    assert "every byte is the original again" in typed(workshop, "undo", "--yes").out
    assert workshop.digests() == before
    typed(workshop, "undo")
    with workshop.open() as registry:
        (host,) = registry.hosts()
    assert dict(host.applied) == {workshop.dog: 8}


def test_undo_of_stacks(workshop: Workshop) -> None:
    typed(workshop, "undo", code=8)
    typed(workshop, "stack", "create", "brand", workshop.dog)
    refused = typed(workshop, "undo", code=7)
    assert refused.err.endswith("hint: rasura stack delete brand\n")
    typed(workshop, "stack", "add", "brand", f"{workshop.photo}=0.5")
    typed(workshop, "stack", "remove", "brand", workshop.dog)
    assert data(workshop, "undo", "--stack", "brand", changed=True)["added"] == {workshop.dog: "1"}
    typed(workshop, "stack", "delete", "brand")
    assert "the stack would be there again" in typed(workshop, "undo", "--dry-run").out
    typed(workshop, "undo")
    with workshop.open() as registry:
        assert dict(registry.stack("brand").patches) == {workshop.dog: 16, workshop.photo: 8}
    assert "undoes" in workshop.entries()[-1].details
    typed(workshop, "audit", "verify")


def test_undo_refuses_what_has_no_inverse(workshop: Workshop) -> None:
    typed(workshop, "undo", *MODEL, code=8)
    typed(workshop, "undo", *MODEL, "--stack", "x", code=2)
    typed(workshop, "patch", "apply", workshop.dog, *MODEL)
    host = workshop.host()
    name = min(host.kept())
    host.write({name: host.read([name])[name] * 2})
    with workshop.unchanged("refused drift"):
        typed(workshop, "undo", "--yes", code=6)
    typed(workshop, "patch", "revert", "--all", "--force", "--yes", *MODEL)
    with workshop.unchanged():
        run = typed(workshop, "undo", "--yes", code=7)
    assert "no way back" in run.err
    assert f"hint: rasura patch apply {workshop.dog[:12]} --model " in run.err
    typed(workshop, "patch", "apply", workshop.dog, *MODEL)
    typed(workshop, "patch", "revert", workshop.dog, *MODEL)
    typed(workshop, "key", "revoke", "alice", "--yes")
    with workshop.unchanged("refused revoked_key"):
        typed(workshop, "undo", code=4)


# --- what un-erases, and what changes nothing -----------------------------------------------------------------------


def test_nothing_is_unerased_unasked(workshop: Workshop) -> None:
    typed(workshop, "stack", "create", "both", workshop.dog, workshop.photo)
    typed(workshop, "stack", "create", "less", workshop.dog)
    typed(workshop, "stack", "create", "weak", f"{workshop.dog}=0.5", workshop.photo)
    typed(workshop, "stack", "create", "nothing")
    typed(workshop, "patch", "switch", "both", *MODEL)
    with workshop.unchanged():
        for goal, named in (("less", "photo"), ("weak", "dog (strength 1 -> 0.5)"), ("nothing", "dog, photo")):
            run = typed(workshop, "patch", "switch", goal, *MODEL, code=2)
            assert f"on the model, this brings back: {named}; nobody can be asked here" in run.err
            assert rasura("patch", "switch", goal, *MODEL, "--json", cwd=workshop.folder).code == 2
        typed(workshop, "patch", "revert", "--all", *MODEL, code=2)
        typed(workshop, "patch", "revert", "--all", "--dry-run", *MODEL)
        assert "nothing would be applied" in typed(workshop, "patch", "switch", "nothing", "--dry-run", *MODEL).out
        would = typed(workshop, "patch", "switch", "less", "--dry-run", *MODEL).out
        assert would.splitlines()[-1] == "dry run: nothing was written"
        typed(workshop, "patch", "revert", workshop.dog, "--dry-run", *MODEL)
        for asked in (("stack", "remove", "both", workshop.dog), ("stack", "add", "less", workshop.photo)):
            assert "would have" in typed(workshop, *asked, "--dry-run").out
        typed(workshop, "stack", "delete", "both", "--dry-run")
        typed(workshop, "stack", "create", "new", workshop.dog, "--dry-run")
        typed(workshop, "stack", "create", "both", workshop.dog, "--dry-run", code=7)
        typed(workshop, "stack", "update", "both", "--dry-run")
    typed(workshop, "patch", "switch", "less", *MODEL, "--yes")
    typed(workshop, "patch", "switch", "both", *MODEL)  # erases more
    typed(workshop, "patch", "revert", workshop.photo, *MODEL)  # says itself what comes back


class Typed(io.StringIO):
    """A terminal on which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("n\n", 130), ("y\n", 0)])
def test_on_a_terminal_it_asks(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    typed(workshop, "patch", "apply", workshop.dog, *MODEL)
    monkeypatch.setattr(sys, "stdin", Typed(answer))
    run = typed(workshop, "patch", "revert", "--all", *MODEL, code=code)
    assert run.out.startswith("on the model, this brings back: dog\nDo it? [y/N]:")
    with workshop.open() as registry:
        assert bool(registry.hosts()[0].applied) == (code != 0)


def test_a_rival_in_its_place_is_no_loss(workshop: Workshop) -> None:
    typed(workshop, "stack", "create", "one", workshop.dog)
    typed(workshop, "stack", "create", "other", workshop.rival)
    typed(workshop, "patch", "switch", "one", *MODEL)
    typed(workshop, "patch", "switch", "other", *MODEL)


def test_applying_again_changes_nothing(workshop: Workshop) -> None:
    typed(workshop, "patch", "apply", workshop.dog, *MODEL)
    with workshop.unchanged():
        assert "already in force on" in typed(workshop, "patch", "apply", workshop.dog, *MODEL).out
        found = data(workshop, "patch", "apply", workshop.dog, *MODEL, changed=False)
        data(workshop, "patch", "apply", workshop.dog, workshop.photo, "--dry-run", *MODEL, changed=False)
    assert found["applied"] == {workshop.dog: "1"}
    typed(workshop, "patch", "apply", workshop.dog, "--strength", "0.5", *MODEL, code=7)
    typed(workshop, "patch", "apply", workshop.dog, workshop.photo, *MODEL)
    assert workshop.entries()[-1].patches == (workshop.photo,)
    typed(workshop, "audit", "verify")


# --- names, lists, retiring ----------------------------------------------------------------------------------------


def test_patches_are_named_by_their_concept_where_that_is_unique(workshop: Workshop) -> None:
    assert typed(workshop, "patch", "verify", "van gogh", "PHOTO").out.startswith(workshop.van_gogh[:12])
    run = rasura("patch", "show", "dog", "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (8, "ambiguous_id")
    assert run.envelope["error"]["details"]["candidates"] == [workshop.dog, workshop.rival]
    assert f"{workshop.rival[:12]} (dog, of " in run.envelope["error"]["message"]
    typed(workshop, "patch", "apply", workshop.dog, "photo", *MODEL)
    typed(workshop, "patch", "revert", "dog", *MODEL)  # of the two, the one that is applied
    typed(workshop, "stack", "create", "brand", "photo=0.5")
    typed(workshop, "stack", "remove", "brand", "photo")


def test_a_name_that_is_none_says_what_was_meant(workshop: Workshop) -> None:
    for command in (("patch", "show"), ("patch", "verify"), ("stack", "create", "x")):
        run = typed(workshop, *command, "van gohg", code=8)
        assert "expected a concept or at least 4 hexadecimal digits of an identifier, got 'van gohg'" in run.err
        assert "; did you mean 'van gogh'?" in run.err
    typed(workshop, "stack", "create", "brand")
    assert "got none; did you mean 'brand'?" in typed(workshop, "stack", "show", "brnad", code=8).err
    assert "did you mean 'tiny'?" in typed(workshop, "base", "show", "tinny", code=8).err
    assert "did you mean 'alice'?" in typed(workshop, "key", "revoke", "alcie", "--yes", code=8).err


def test_a_concept_that_reads_as_digits(workshop: Workshop) -> None:
    (workshop.folder / "retain.txt").write_text("painting\ncat\na\nthe\n")
    erase = ["erase", "--base", "tiny", "--concept", "face", "--anchor", "cat", "--retain", "retain.txt"]
    erase += ["--tokens", "last", "--rank-rule", "count:8", "--template", "{}", "--template", "a {}"]
    (made,) = data(workshop, *erase, changed=True)["patches"]
    assert data(workshop, "patch", "show", "face", changed=False)["id"] == made["id"]
    assert data(workshop, "patch", "show", "FACE", changed=False)["id"] == made["id"]
    assert "begins with fade" in typed(workshop, "patch", "show", "fade", code=8).err


def test_a_superseded_patch_is_not_meant_by_its_concept(workshop: Workshop) -> None:
    run = rasura("patch", "rebase", workshop.photo, "--protect", workshop.rival, "--json", cwd=workshop.folder)
    (made,) = run.data["patches"]
    assert data(workshop, "patch", "show", "photo", changed=False)["id"] == made["id"]
    typed(workshop, "patch", "apply", workshop.photo, *MODEL)
    (old,) = data(workshop, "patch", "list", "--superseded", changed=False)["patches"]
    assert (old["id"], old["superseded_by"]) == (workshop.photo, made["id"])
    assert old["in_force"] == [str(workshop.model)]
    status = typed(workshop, "status").out
    assert f"open: {workshop.photo[:12]} (photo) is in force though {made['id'][:12]} supersedes it" in status
    typed(workshop, "patch", "revert", "photo", *MODEL)


def test_the_list_says_where_and_why(workshop: Workshop) -> None:
    typed(workshop, "patch", "apply", workshop.dog, *MODEL)

    def listed(*options: str) -> list[str]:
        return [p["id"] for p in data(workshop, "patch", "list", *options, changed=False)["patches"]]

    assert listed("--in-force") == [workshop.dog]
    assert listed("--concept", "Dog") == [workshop.dog, workshop.rival]
    assert listed("--base", "tiny", "--method", "null-space", "--current") == listed()
    assert listed("--method", "uce") == []
    assert typed(workshop, "patch", "list", "--method", "uce").out == "no patches like that\n"
    head, first, *_ = typed(workshop, "patch", "list").out.splitlines()
    assert "IN FORCE AT" in head
    assert "SUPERSEDED BY" not in head  # none is
    assert "the model    ticket 7" in first
    assert typed(workshop, "patch", "list", "--base", "no", code=8).err.startswith("error: base: expected a name or")


def test_retired_patches_are_hidden_left_out_and_still_there(workshop: Workshop) -> None:
    typed(workshop, "patch", "apply", workshop.photo, *MODEL)
    typed(workshop, "stack", "create", "brand", workshop.van_gogh)
    with workshop.unchanged():
        assert "is in use: model " in typed(workshop, "patch", "retire", "photo", code=7).err
        assert "is in use: stack brand" in typed(workshop, "patch", "retire", "van gogh", code=7).err
        assert "would be retired" in typed(workshop, "patch", "retire", workshop.rival, "--dry-run").out
    data(workshop, "patch", "retire", workshop.rival, "--reason", "the better one is dog", changed=True)
    data(workshop, "patch", "retire", workshop.rival, changed=False)
    entry = workshop.entries()[-1]
    assert (entry.action, entry.patches, entry.reason) == ("patch.retire", (workshop.rival,), "the better one is dog")
    assert workshop.rival[:12] not in typed(workshop, "patch", "list").out
    assert workshop.rival[:12] in typed(workshop, "patch", "list", "--retired").out
    typed(workshop, "patch", "verify", "dog")  # one is left of that name
    typed(workshop, "patch", "verify", workshop.rival)
    with workshop.unchanged("refused conflict"):
        typed(workshop, "patch", "apply", workshop.rival, *MODEL, code=7)
        typed(workshop, "stack", "add", "brand", workshop.rival, code=7)
    with workshop.open() as registry:
        base = registry.patch(workshop.dog).base
        assert set(find_others(registry, [base], ["cat"])) == {*workshop.all}
    typed(workshop, "patch", "retire", "dog")
    assert "is erased by retired patches only" in typed(workshop, "patch", "show", "dog", code=8).err
    typed(workshop, "patch", "unretire", workshop.rival)
    data(workshop, "patch", "unretire", workshop.rival, changed=False)
    typed(workshop, "patch", "unretire", workshop.dog)
    assert "patches: 4 (1 in force)" in typed(workshop, "status").out
    typed(workshop, "audit", "verify")


# --- commands and tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("stauts",), "Did you mean 'rasura status'?"),
        (("apply",), "Did you mean 'rasura patch apply'?"),
        (("patch", "lst"), "Did you mean 'rasura patch list'?"),
        (("xyzzy",), "No such command 'xyzzy'."),
    ],
)
def test_a_mistyped_command(tmp_path: Path, words: tuple[str, ...], meant: str) -> None:
    run = rasura(*words, cwd=tmp_path)
    assert run.code == 2
    assert meant in run.err


def test_tables_stay_inside_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Typed()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "60")
    rows = [("0123456789ab", "a" * 50, "b" * 40, "c", "2026-01-02")] * 2
    output.table(("patch", "concept", "place", "x", "added"), rows)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("0123456789ab  aaaaaaaa")
    assert "…" in lines[1]
    out.truncate(0)
    output.table([f"h{i}" for i in range(7)], [["0123456789ab"] * 7])
    assert "(no room for h4, h5, h6: a wider terminal, or --json, shows them)" in out.getvalue()


def test_verdicts_have_colours_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for terminal, no_color, coloured in ((True, "", True), (True, "1", False), (False, "", False)):
        out = Typed() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setenv("NO_COLOR", no_color)
        output.verdict("good", good=True)
        output.table(("check", "verdict", "why"), [("own", "ok", "ok"), ("pair", "REFUSED", "")])
        output.fields([("verdict", "refused: it disturbs"), ("stack", "accepted")])
        said = out.getvalue()
        assert (said.count("\x1b[32m"), said.count("\x1b[31m")) == ((2, 2) if coloured else (0, 0))
        plain = click.unstyle(said).splitlines()
        assert plain[1:4] == ["CHECK  VERDICT  WHY", "own    ok       ok", "pair   REFUSED"]


def test_empty_lists_are_sentences(tmp_path: Path) -> None:
    rasura("init", cwd=tmp_path)
    said = {
        noun: rasura(noun, "list", cwd=tmp_path).out.splitlines()[0]
        for noun in ("patch", "stack", "base", "key", "host", "evaluation")
    }
    assert [line for line in said.values() if not line.startswith("no ")] == []


@pytest.mark.parametrize(
    "words",
    [
        ("erase", "--base", "tiny", "--concept", "x", "--retain", "nope"),
        ("erase", "--base", "tiny", "--concept", "x", "--retain", "retain.txt", "--held-out", "nope"),
        ("erase", "--base", "tiny", "--concept", "x", "--retain", "retain.txt", "--templates", "nope"),
        ("erase", "--base", "nope", "--concept", "x", "--retain", "retain.txt"),
        ("takedown", "--model", "the model", "--file", "nope", "--yes"),
        ("takedown", "--model", "nope", "--concept", "x", "--retain", "retain.txt", "--yes"),
        ("patch", "apply", "nope", *MODEL),
        ("patch", "add", "nope"),
        ("policy", "set", "nope"),
        ("doctor", "--model", "nope"),
        ("bundle", "show", "nope"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_8(workshop: Workshop, words: tuple[str, ...]) -> None:
    (workshop.folder / "retain.txt").write_text("the\n")
    typed(workshop, *words, code=8)


def test_colours_come_from_one_place() -> None:
    modules = sorted(Path(output.__file__).parents[1].rglob("*.py"))
    styling = [m for m in modules if "click.style(" in m.read_text() or "secho" in m.read_text()]
    assert styling == [Path(output.__file__)]


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (0.05, math.inf, "0.05"), (4.69e-7, 0.001, "< 0.001"), (4.69e-7, 1e-6, "0.000000469"), (0, 0.001, "0"),
        (1e-12, 0.001, "0"), (0.00099, math.inf, "< 0.001"), (0.001, 0.001, "0.001"), (1.9666, 256, "1.97"),
        (-0.0004, math.inf, "-0.0004"), (math.inf, math.inf, "inf"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(value: float, limit: float, said: str) -> None:
    assert format_number(value, limit) == said


def test_no_exponents_for_people_and_exact_numbers_for_machines(workshop: Workshop) -> None:
    for words in (("patch", "show", workshop.dog), ("patch", "check", *workshop.all)):
        people = rasura(*words, cwd=workshop.folder).out
        assert re.findall(r"(?<![0-9a-f])[0-9]+\.[0-9]+e-[0-9]+", people) == []
        assert re.search(r"0\.000[0-9]", people) is None
    checked = rasura("patch", "check", *workshop.all, "--json", cwd=workshop.folder).data["relations"]
    assert any(0 < relation["value"] < 0.001 for relation in checked)
