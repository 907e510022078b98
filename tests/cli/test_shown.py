# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What people see: tables that stay tables whatever stands in them, hints that can be typed, progress on stderr."""

import ast
import re
import shlex
import sys
from io import StringIO
from pathlib import Path

import click
import pytest
from support.commandline import rasura
from support.models.tiny import tiny_tokenizer
from support.registries.workshop import Workshop, start, workshop

from rasura import cli as front_door
from rasura.commands._shared import output
from rasura.commands._shared.progress import progress

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"(?<!the )rasura(?: [a-z]+)+")


def options(*, cat: str = "cat") -> list[str]:
    return ["--anchor", cat, "--tokens", "last", "--rank-rule", "count:8", "--template", "{}", "--template", "a {}"]


def test_exotic_names_stay_inside_their_column(workshop: Workshop) -> None:
    """Commas, quotes, two cells wide, right to left, and marks that would turn the reading direction."""
    (workshop.folder / "retain.txt").write_text("painting\ncat\na\nthe\n")
    names = ['dog, "van" & <b>', "猫の絵", "שלום", "a\u202edog", "e\u0301cole"]
    for name in names:
        erase = ["erase", "--base", "tiny", "--concept", name, "--retain", "retain.txt", *options()]
        run = rasura(*erase, "--json", cwd=workshop.folder)
        assert run.data["patches"][0]["concept"] == name
    run = rasura("patch", "list", cwd=workshop.folder)
    lines = run.out.splitlines()
    assert "\u202e" not in run.out
    assert "a\\u202edog" in run.out
    assert {output._width(line[: line.index("null-space")]) for line in lines[1:]} == {lines[0].index("METHOD")}
    patches = rasura("patch", "list", "--json", cwd=workshop.folder).data["patches"]
    assert [p["concepts"] for p in patches[-5:]] == [[name] for name in names]
    shown = rasura("patch", "show", patches[-2]["id"], cwd=workshop.folder).out
    assert "\u202e" not in shown
    refused = rasura("patch", "check", *(p["id"] for p in patches[-2:]), cwd=workshop.folder)
    assert "\u202e" not in refused.out + refused.err


def test_a_reason_cannot_forge_a_line_of_the_log(workshop: Workshop) -> None:
    forged = "x\n99  2026-01-01 00:00:00  root  patch.apply  done\x1b[2J\r"
    assert rasura("key", "new", "bob", "--reason", forged, cwd=workshop.folder).code == 0
    run = rasura("audit", "log", cwd=workshop.folder)
    assert len(run.out.splitlines()) == len(workshop.entries()) + 1
    assert "\x1b" not in run.out
    assert "\r" not in run.out
    assert rasura("audit", "log", "--json", cwd=workshop.folder).data["entries"][0]["reason"] == forged


def test_tables_are_lines_that_other_tools_can_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("id", "what"), [("1", "猫"), ("22", "a\nb"), ("3", "")])
    assert capsys.readouterr().out == "ID  WHAT\n1   猫\n22  a\\u000ab\n3\n"
    output.fields([("name", "x"), ("longer name", "")])
    assert capsys.readouterr().out == "name         x\nlonger name\n"


def test_progress_goes_to_stderr_and_only_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress() as tell:
        tell("quick", 0, 2)
        tell("quick", 1, 2)
    assert capsys.readouterr() == ("", "")
    with progress() as tell:
        tell._started -= 2  # type: ignore[attr-defined]
        for done in range(3):
            tell(f"slow\tloss {done}", done, 2)
    assert capsys.readouterr() == ("", "slow…\n")

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress() as tell:
        tell("drawing", 0, 3)
        tell("drawing", 2, 3)
        for done in range(1, 4):  # a concept's name is nobody's markup; a note changes beside one bar
            tell(f"training [/red]\x1b\tloss {done}.5", done, 3)
    assert "drawing" in terminal.getvalue()
    assert "training [/red]\\u001b  loss 3.5" in terminal.getvalue()
    assert terminal.getvalue().splitlines()[-1].count("training") <= 1
    assert capsys.readouterr().out == ""


def test_status_tells_the_way_out(workshop: Workshop) -> None:
    model = ("--model", "the model")
    assert rasura("patch", "apply", workshop.dog, *model, cwd=workshop.folder).code == 0
    host = workshop.host()
    name = min(host.kept())
    host.write({name: host.read([name])[name] * 2})
    run = rasura("patch", "status", *model, cwd=workshop.folder)
    assert run.code == 6
    out = run.out.splitlines()
    assert out[-1] == "to put the originals back: rasura patch revert --all --force --model 'the model'"
    assert "not all as they should be" in out[-3]
    which = shlex.split(out[-2].partition(": ")[2])[1:]
    deep = rasura(*which, cwd=workshop.folder)
    assert deep.code == 6
    assert deep.out.splitlines()[-2] == f"  {name}"
    assert deep.out.splitlines()[-3].endswith(", 1 not as they should be")
    _, *arguments = shlex.split(out[-1].partition(": ")[2])
    assert rasura(*arguments, cwd=workshop.folder).code == 2  # it asks, and nobody is there
    assert rasura(*arguments, "--yes", cwd=workshop.folder).code == 0
    assert "nothing is applied" in rasura("patch", "status", *model, cwd=workshop.folder).out
    assert rasura("patch", "revert", workshop.dog, "--force", *model, cwd=workshop.folder).code == 2
    assert rasura("patch", "revert", workshop.dog, "--all", *model, cwd=workshop.folder).code == 2


def texts() -> list[tuple[str, str]]:
    """Every text in the sources that names a command of ours, and where it stands."""
    found = []
    for folder in ("patches", "registry", "commands", "evaluation"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (isinstance(node, ast.keyword) and node.arg == "hint") or (
                    isinstance(node, ast.Assign) and "hint" in ast.dump(node.targets[0]).lower()
                ):
                    for part in ast.walk(node.value):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            found += [
                                (f"{path.relative_to(ROOT)}:{part.lineno}", m) for m in COMMAND.findall(part.value)
                            ]
    return found


def test_every_hint_that_names_a_command_names_a_real_one() -> None:
    wrong = []
    for where, text in texts():
        command: click.Command | None = front_door.cli
        for word in text.split()[1:]:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
        if command is None or isinstance(command, click.Group):
            wrong.append(f"{where}: {text}")
    assert len(texts()) > 20
    assert wrong == []


def test_the_page_before_the_first_patch_does_not_claim_that_there_are_none(workshop: Workshop) -> None:
    first = rasura("patch", "list", "--json", cwd=workshop.folder).data["patches"][0]["id"]
    run = rasura("patch", "list", "-n", "1", "--before", first, cwd=workshop.folder)
    assert (run.code, run.out) == (0, "no patches like that\n")
