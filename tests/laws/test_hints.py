"""A hint is the next command to type, so every hint in `patches/` must be one that this program understands."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import rasura
from rasura.cli import cli

ROOT = Path(rasura.__file__).parent
MODULES = (
    "algebra/increment",
    "algebra/compose",
    "algebra/protected_subspace",
    "format/manifest",
    "format/manifest_parts",
    "format/patch",
    "models/base_identity",
    "models/text_encoders/load_encoder",
    "prompts/concept_prompts",
    "prompts/nearest_concepts",
    "prompts/retain_set",
    "erasers/adopted",
    "erasers/request",
    "erasers/closed_form/null_space",
    "erasers/trained/all_but_one",
    "erasers/trained/prompt_null_space",
    "erasers/trained/training_loop",
    "checks/check",
    "solving/conditioning",
    "solving/from_manifest",
    "solving/measure",
    "solving/reproject",
    "solving/retarget",
)


def hints() -> Iterator[tuple[str, str]]:
    """Where, and the text; what is filled in at run time reads X."""
    for module in MODULES:
        path = ROOT / "patches" / f"{module}.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                yield f"{module}:{node.value.lineno}", text_of(node.value)
            if isinstance(node, ast.Constant | ast.JoinedStr) and text_of(node).startswith("rasura "):
                yield f"{module}:{node.lineno}", text_of(node)


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "X"


def commands(group: click.Group, path: str = "rasura") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


assert isinstance(cli, click.Group)
COMMANDS = dict(commands(cli))
OPTIONS = {option for command in COMMANDS.values() for p in command.params for option in p.opts}


@pytest.mark.parametrize(("where", "hint"), sorted(set(hints())))
def test_hints_are_commands_or_options_that_exist(where: str, hint: str) -> None:
    if hint in {"X", "first.hint", "error.hint"} or hint.startswith("pip install "):
        return
    if hint.startswith("rasura "):
        path = next((p for p in COMMANDS if hint == p or hint.startswith(p + " ")), None)
        assert path is not None, f"{where}: no such command: {hint}"
        known = {option for p in COMMANDS[path].params for option in p.opts}
    else:
        assert hint.startswith("-"), f"{where}: neither a command nor an option: {hint}"
        known = OPTIONS
    named = [word for word in shlex.split(hint) if re.fullmatch(r"--?[a-z][a-z-]*", word)]
    assert set(named) <= known, f"{where}: {hint}"


def test_the_scan_sees_hints() -> None:
    assert len(list(hints())) > 20
