"""What the command line promises before it does anything: help everywhere, at once, and fixed codes for errors."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support.registries.registry_fixtures import evaluation, filled, patch
from support.registries.workshop import Workshop, workshop  # noqa: F401

from rasura import cli as front_door
from rasura.patches import errors
from rasura.patches.errors import RasuraError
from rasura.registry.registry import Registry

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "numpy", "diffusers", "transformers", "huggingface_hub", "safetensors", "PIL"}
# Of command lines, separated by "//", what has been imported when each has ended, and how it ended.
_SHOW = (
    "import sys, runpy\n"
    "for line in ' '.join(sys.argv[1:]).split(' // '):\n"
    "    sys.argv, code = ['rasura', *line.split()], 0\n"
    "    try:\n        runpy.run_module('rasura', run_name='__main__')\n"
    "    except SystemExit as end:\n        code = end.code or 0\n"
    "    print('ended', code, *sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
)


def _commands(command: click.Command, path: str = "rasura") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from _commands(child, f"{path} {name}")


def _imported(*lines: str, cwd: Path) -> dict[str, set[str]]:
    """The top-level modules that a process has imported when each of these commands has ended; all must succeed."""
    command = [sys.executable, "-c", _SHOW, " // ".join(lines)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends = [said.split()[1:] for said in done.stderr.splitlines() if said.startswith("ended ")]
    assert [end[0] for end in ends] == ["0"] * len(lines), done.stderr
    return {line: set(end[1:]) for line, end in zip(lines, ends, strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry."""
    made = tmp_path_factory.mktemp("registry")
    with Registry.create(str(made), actor="tester") as registry:
        filled(registry)
    return made


def test_every_command_and_option_has_help() -> None:
    missing = []
    for path, command in _commands(front_door.cli):
        missing += [] if (command.help or "").strip() else [path]
        options = [p for p in command.params if isinstance(p, click.Option)]
        missing += [f"{path} {option.opts[0]}" for option in options if not (option.help or "").strip()]
    assert missing == []


def test_no_two_words_of_an_option_are_joined_by_an_underscore() -> None:
    found = [o for _, c in _commands(front_door.cli) for p in c.params if isinstance(p, click.Option) for o in p.opts]
    assert [option for option in found if "_" in option] == []


def test_the_help_of_a_noun_is_the_line_in_the_table() -> None:
    """`rasura --help` prints its lines from a table so as to import nothing; they must not drift from the help."""
    told = {name: line for name, (_, line) in front_door._COMMANDS.items()}
    nouns = {
        path.split()[1]: c.help
        for path, c in _commands(front_door.cli)
        if isinstance(c, click.Group) and path.count(" ") == 1
    }
    assert nouns == {name: told[name] for name in nouns}
    assert nouns


def test_the_page_of_commands_is_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/tools/cli.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    found = _imported("--help", cwd=tmp_path)["--help"]
    assert found & (HEAVY | {"sqlalchemy", "alembic", "cryptography", "rich"}) == set()


def test_help_of_a_command_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = [f"{noun} --help" for noun in ("erase", "patch", "base", "push")]
    for line, found in _imported(*lines, cwd=tmp_path).items():
        assert found & (HEAVY | {"sqlalchemy", "alembic"}) == set(), line


def test_reading_the_registry_imports_no_tensors(folder: Path) -> None:
    lines = (
        "audit log",
        "audit verify",
        "key list",
        "base list",
        "evaluation list",
        "stack list",
        "policy show",
        f"evaluation show {evaluation(patch()).digest}",
    )
    for line, found in _imported(*lines, cwd=folder).items():
        assert found & (HEAVY | {"alembic"}) == set(), line


def test_reading_a_registry_of_real_patches_imports_no_tensors(workshop: Workshop) -> None:  # noqa: F811
    with workshop.open() as registry:
        assert registry.patches()
    lines = ("patch list", "patch list --json", "status", "log", "host list", "stack list", "doctor", "gc")
    for line, found in _imported(*lines, cwd=workshop.folder).items():
        assert found & (HEAVY | {"alembic"}) == set(), line


def test_the_probe_would_notice_torch() -> None:
    """The tests above can fail: this command line needs torch, and the probe sees it."""
    done = subprocess.run(
        [sys.executable, "-c", "import torch\n" + _SHOW, "--version"], capture_output=True, text=True, check=False
    )
    assert "torch" in done.stderr.splitlines()[-1].split()


def _tree(root: type[RasuraError]) -> Iterator[type[RasuraError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = list(_tree(RasuraError))
    without = [kind.__name__ for kind in kinds if "code" not in vars(kind)]
    assert without == []
    codes = [kind.code for kind in kinds]
    assert sorted(codes) == sorted(set(codes))
    assert [code for code in codes if not re.fullmatch(r"[a-z]+(_[a-z]+)*", code)] == []


def test_every_exit_code_is_documented_where_people_look() -> None:
    shown = front_door.cli.get_help(click.Context(front_door.cli, info_name="rasura"))
    documented = {int(number) for number in re.findall(r"(?:^|\s{4})(\d+) [a-z]", shown, re.MULTILINE)}
    assert {kind.exit_code for kind in _tree(RasuraError)} <= documented
    assert {0, 1, 2, 3, 4, 5, 6, 7, 8, 130} == documented


def test_the_tree_at_the_top_of_the_errors_is_the_tree() -> None:
    """Name, depth and exit code of every class, as the module's docstring draws them."""
    drawn = [
        (match[2], len(match[1]) // 4, match[3])
        for match in re.finditer(r"^([│├└─ ]*)(\w+Error)\s+(\d)?", errors.__doc__ or "", re.MULTILINE)
    ]
    real: list[tuple[str, int]] = []

    def visit(kind: type[RasuraError], depth: int) -> None:
        real.append((kind.__name__, depth))
        for child in kind.__subclasses__():
            if child.__module__.startswith(f"{errors.__name__}."):
                visit(child, depth + 1)

    visit(RasuraError, 0)
    assert [(name, depth) for name, depth, _ in drawn] == real
    for name, _, code in drawn:
        if code is not None:
            assert getattr(errors, name).exit_code == int(code), name


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["patch", "show", "0" * 12], 8, "not_found"),
        (["patch", "revert", "--model", "nowhere"], 2, "usage"),
        (["no-such-noun"], 2, "usage"),
    ],
)
def test_an_error_ends_with_its_exit_code_and_says_so_to_machines(
    arguments: list[str], code: int, kind: str, folder: Path
) -> None:
    command = [sys.executable, "-m", "rasura", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert f'"code": "{kind}"' in done.stdout
    assert done.stderr == ""
