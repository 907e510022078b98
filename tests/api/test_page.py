"""docs/python.md: its walk prints what it shows and leaves no byte changed, and its reference is what the program says."""

import ast
import doctest
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.registries.workshop import digests

import rasura

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"
MODEL = ROOT / "examples" / "reference_model" / "pipeline"


def walk() -> doctest.DocTest:
    """The page's walk as a test; failures name lines of the page."""
    text = PAGE.read_text()
    (block,) = re.finditer(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    before = text[: block.start(1)].count("\n")
    return doctest.DocTestParser().get_doctest(block[1], {}, "walk", str(PAGE), before)


@pytest.mark.usefixtures("encoded_once")
def test_the_walk_prints_what_it_shows_and_every_byte_is_the_bases_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    test, said = walk(), list[str]()
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
    assert result.attempted == len(test.examples) > 10
    assert digests(tmp_path / "model") == digests(MODEL)
    with rasura.open("work") as registry:
        done = [(e.action, e.reason) for e in registry.log(newest=False) if e.reason]
    assert {("patch.erase", "takedown 118"), ("patch.apply", "takedown 118")} <= set(done)
    assert ("patch.revert", "claim withdrawn") in done


def test_the_walk_takes_thirty_lines_and_goes_all_the_way() -> None:
    code = "".join(example.source for example in walk().examples)
    assert len(code.splitlines()) <= 30
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    steps = {"new_key", "add_base", "erase", "check", "apply", "status", "revert", "verify"}
    assert {"rasura.init", *(f"registry.{step}" for step in steps)} <= called


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_python", ROOT / "docs" / "tools" / "python.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_program_says(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["python.py", "--check"])
    tool.main()


def test_a_stale_reference_is_found_and_mended(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "python.md"
    page.write_text(PAGE.read_text().replace("#### registry.apply\n", "#### registry.put\n"))
    monkeypatch.setattr(tool, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["python.py", "--check"])
    with pytest.raises(SystemExit, match="run `make fix`"):
        tool.main()
    monkeypatch.setattr(sys, "argv", ["python.py"])
    tool.main()
    assert page.read_text() == PAGE.read_text()


def test_every_public_name_and_method_has_its_place() -> None:
    headings = set(re.findall(r"^#{3,4} ([\w.]+)$", PAGE.read_text(), re.MULTILINE))
    names = {f"rasura.{name}" for name in set(rasura.__all__) - {"__version__", "errors", "Registry"}}
    methods = {f"registry.{name}" for name in vars(rasura.Registry) if not name.startswith("_")}
    assert (names | methods) - headings == set()
