"""The figures of docs/house.md: counted right where one can count by hand, and in the page as they are printed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

FIRST = '''"""A module."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasura.patches import types


def told() -> int:
    """Say it."""
    from rasura.patches.types import same  # noqa: PLC0415

    # Why it is so.
    return same()


def same():
    return 1
'''
SECOND = '''"""Another."""

from rasura.patches.errors import told

_HIDDEN = told


def same() -> int:
    """Say it again."""
    return 2


class _Hidden:
    def shown(self):
        pass
'''


@pytest.fixture
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_house", ROOT / "docs" / "tools" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def two_modules(tmp_path: Path) -> Path:
    (tmp_path / "patches").mkdir()
    for name, text in {"__init__.py": "", "patches/__init__.py": "", "patches/errors.py": FIRST}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "patches" / "types.py").write_text(SECOND)
    return tmp_path


def test_a_house_of_two_modules(house: ModuleType, two_modules: Path) -> None:
    assert house.count(two_modules).rows == {
        "lines": "33",
        "modules / median / longest, lines": "4 / 7.5 / 18",
        "functions / median / 90 % below / longest, lines": "4 / 2.5 / 6 / 6",
        "functions with a return type": "50.0 %",
        "public functions and classes with a docstring": "66.7 %",
        "comments in 100 lines": "3.0",
        "imports inside functions": "1",
        "`TYPE_CHECKING` blocks": "1",
        "most modules in a folder": "3 (`patches`)",
        "circles of imports among siblings": "1",
        "names that several public functions of modules share": "1",
        "names that several public classes share": "0",
    }
    assert house.table_of_rooms(two_modules).splitlines()[2:] == [
        "| `.` | 1 | 0 | 0.0 |",
        "| `patches` | 3 | 33 | 3.0 |",
    ]


def test_the_page_has_the_table_and_its_command(house: ModuleType, two_modules: Path) -> None:
    page = (ROOT / "docs" / "house.md").read_text()
    table = page.partition("<!-- house -->\n")[2].partition("<!-- /house -->")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    assert rows == list(house.count(two_modules).rows)
    assert "docs/tools/house.py --ref" in page


def test_a_commit_is_counted_as_it_was(tmp_path: Path) -> None:
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs git and a checkout")
    command = [sys.executable, str(ROOT / "docs" / "tools" / "house.py"), "--ref", "HEAD"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("|  | HEAD |\n")
