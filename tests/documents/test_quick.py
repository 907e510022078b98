"""`make quick` reaches what it promises, and stays a small part of the tests."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
# What each promise of the list rests on.
PROMISES: Final = {
    "laws": "tests/laws",
    "the contract of the command line": "tests/cli/test_contract.py",
    "every eraser, from the command line to the model and back": "tests/cli/erasing/test_methods.py",
    "bad input": "tests/test_bad_input.py",
    "other programs": "tests/interop",
    "crashes": "tests/patches/hosts/disk/journal/test_rollback_journal.py",
    "the Merkle tree": "tests/registry/log/test_merkle.py",
    "the log as a whole": "tests/registry/log/test_verify.py",
}


def quick() -> list[str]:
    found = re.search(r"^QUICK := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


def modules(paths: list[str]) -> set[Path]:
    """The test modules in these files and folders."""
    wanted = (ROOT / path for path in paths)
    return {file for path in wanted for file in ([path] if path.is_file() else path.rglob("test_*.py"))}


def functions(files: set[Path]) -> int:
    """How many tests are written in them, however often each is run."""
    trees = (ast.parse(file.read_text()) for file in files)
    return sum(isinstance(n, ast.FunctionDef) and n.name.startswith("test_") for tree in trees for n in ast.walk(tree))


def test_what_is_listed_exists_once() -> None:
    paths = quick()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) == len(set(paths))
    assert all(modules([path]) for path in paths)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept(promise: str) -> None:
    assert PROMISES[promise] in quick()
    assert functions(modules([PROMISES[promise]])) > 0


def test_golden_bytes_of_each_file_are_read() -> None:
    """Every module that tests/vectors/README.md names as the one that checks a file."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (VECTORS / "README.md").read_text()))
    assert named
    assert {ROOT / name for name in named} <= modules(quick())


def test_it_is_a_fifth() -> None:
    """Of the tests that are written; a tenth and a fourth are its bounds."""
    share = functions(modules(quick())) / functions(modules(["tests"]))
    assert 0.1 < share < 0.25


def test_make_runs_the_list() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nquick:")[2].partition("\n\n")[0]
    assert "pytest" in recipe
    assert "$(QUICK)" in recipe
