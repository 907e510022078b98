"""Each line of docs/threats.md that says what is found names tests, and they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_line_is_backed_by_tests_of_that_name() -> None:
    found = (ROOT / "docs" / "threats.md").read_text().partition("## What is found")[2].partition("## What is not")[0]
    lines = [line for line in found.splitlines() if line.startswith("|")][2:]
    there = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(lines) > 10
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named, line
        assert [name for name in named if f"def {name}(" not in there] == [], line


def test_each_attack_of_these_files_is_on_the_page() -> None:
    page = (ROOT / "docs" / "threats.md").read_text()
    names = {
        name
        for path in (ROOT / "tests" / "attacks").glob("test_*.py")
        for name in re.findall(
            r"^def (test_\w*(?:refused|believed|cannot|fails|does_not_continue)\w*)\(", path.read_text(), re.MULTILINE
        )
    }
    assert {name for name in names if name not in page} == set()
