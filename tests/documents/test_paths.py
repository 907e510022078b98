"""What documents, docstrings and comments call a file or a module is there, under that very name."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# They speak of what was there on their day.
HISTORY = {"docs/lab-log.md", "CHANGELOG.md"}
ROOMS = "api|benchmarks|commands|docs|evaluation|examples|migrations|patches|registry|tests"
PATH = re.compile(rf"(?<![\w/.…-])(?:\.\./)*((?:{ROOMS})/[\w./-]*\w)(?![\w*{{<])")
FILE = re.compile(r"(?<![\w/.…*-])((?:[\w.-]+/)*\w[\w-]*\.py)\b(?!/)")
MODULE = re.compile(r"(?<![\w./-])rasura((?:\.\w+)+)")
# Texts that look like the name of a module and are that of a file, or of a key in one.
NOT_MODULES = {
    "rasura.lock",
    "rasura.format",
    "rasura.base_sha256",
    "rasura.licence",
    "rasura.signed",
    "rasura.registry.x",
}
# What `make bench` writes, and nobody has kept.
NOT_KEPT = {"docs/benchmarks/pairs.md"}
# Capitals stand for any name: docs/results/STAGE.json.
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")


@cache
def tracked() -> frozenset[str]:
    """Every file of the checkout that git knows, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs git and a checkout")
    return frozenset(name for name in done.stdout.splitlines() if (ROOT / name).is_file())


@cache
def folders() -> frozenset[str]:
    return frozenset(str(folder) for name in tracked() for folder in Path(name).parents)


@cache
def tails() -> frozenset[str]:
    """What a file of the checkout may be called for short: `tiny.py`, `models/tiny.py`."""
    parts = (name.split("/") for name in tracked())
    return frozenset("/".join(names[start:]) for names in parts for start in range(1, len(names)))


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    """Of a module."""
    return tuple(ast.walk(ast.parse((ROOT / name).read_text())))


@cache
def prose(name: str) -> str:
    """The text of a page; the comments and docstrings of a module."""
    text = (ROOT / name).read_text()
    if not name.endswith(".py"):
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    # A text that stands alone is a docstring: of a module, a class, a function, or the attribute above it.
    alone = (node.value for node in nodes(name) if isinstance(node, ast.Expr))
    found += [node.value for node in alone if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(found)


def missing_files(text: str, page: Path) -> Iterator[str]:
    """Paths that neither begin at the root nor beside the page, and bare names that no file has."""
    for found in [*PATH.findall(text), *FILE.findall(text)]:
        if PLACEHOLDER.search(found) or found.startswith("rasura/"):
            continue
        if found in tracked() or found in folders() or f"{found}.py" in tracked() or found in NOT_KEPT:
            continue
        if found.partition("/")[0] not in ROOMS.split("|") and found in tails():
            continue
        if not (page.parent / found).resolve().exists():
            yield found


def missing_modules(text: str) -> Iterator[str]:
    """Dotted names whose longest module does not tell of the name that follows."""
    for dotted in MODULE.findall(text):
        if f"rasura{dotted}" in NOT_MODULES:
            continue
        parts, at = dotted[1:].split("."), ""
        while parts and (at + parts[0]) in folders():
            at += f"{parts.pop(0)}/"
        source = f"{at}__init__.py"
        if parts and f"{at}{parts[0]}.py" in tracked():
            source = f"{at}{parts.pop(0)}.py"
        known = (ROOT / source).read_text() if source in tracked() else ""
        if parts and not parts[0].startswith("__") and not re.search(rf"\b{re.escape(parts[0])}\b", known):
            yield f"rasura{dotted}"


def speaking() -> list[str]:
    names = (name for name in tracked() if name.endswith((".md", ".py", ".toml")) or name == "Makefile")
    return sorted(name for name in names if name not in HISTORY)


def test_every_file_that_is_named_exists() -> None:
    stale = {f"{name}: {found}" for name in speaking() for found in missing_files(prose(name), ROOT / name)}
    assert stale == set()


def test_every_module_that_is_named_exists() -> None:
    stale = {f"{name}: {found}" for name in speaking() for found in missing_modules(prose(name))}
    assert stale == set()


def test_every_module_that_a_test_or_a_script_spells_in_a_text_exists() -> None:
    """Programs for other processes are texts; no linter follows their imports."""
    imports = re.compile(r"^\s*(?:from|import) (rasura(?:\.\w+)+)\b", re.MULTILINE)
    stale = set()
    for name in speaking():
        if not name.endswith(".py"):
            continue
        for node in nodes(name):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "rasura" in node.value:
                found = (m for dotted in imports.findall(node.value) for m in missing_modules(dotted))
                stale |= {f"{name}: {module}" for module in found}
    assert stale == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see `patches/erasers/nullspace.py`", ["patches/erasers/nullspace.py", "patches/erasers/nullspace.py"]),
        ("`projection.py` checks", ["projection.py"]),
        ("in tests/unit, and docs/nowhere.md", ["tests/unit", "docs/nowhere.md"]),
        ("`patches/types.py`, `types.py`, patches/checks, docs/results/STAGE.json", []),
    ],
)
def test_a_stale_path_is_found(text: str, found: list[str]) -> None:
    assert list(missing_files(text, ROOT / "README.md")) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rasura.registry.nouns.keys", ["rasura.registry.nouns.keys"]),
        ("rasura.patches.hosts.Host", ["rasura.patches.hosts.Host"]),
        ("rasura.patches.hosts.interface.Host, rasura.attach, rasura.lock", []),
    ],
)
def test_a_stale_module_is_found(text: str, found: list[str]) -> None:
    assert list(missing_modules(text)) == found
