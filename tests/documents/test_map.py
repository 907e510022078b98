"""The map in docs/architecture.md: every room that exists, no other, and journeys along files that follow one another."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("commands", "api", "evaluation", "registry", "patches")


def section(title: str) -> str:
    page = (ROOT / "docs" / "architecture.md").read_text()
    return page.partition(f"{title}\n")[2].partition("\n## ")[0]


def rooms() -> set[str]:
    """Folders with modules; what Python leaves behind is no module."""
    files = (file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))
    return {str(file.parent.relative_to(ROOT)) for file in files}


def test_the_map_lists_exactly_the_rooms_that_exist() -> None:
    listed = re.findall(r"^\| `([\w/]+)` \|", section("## Where is what"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == rooms()


@pytest.mark.parametrize("journey", ["Erase", "Apply on disk", "Apply live", "Push"])
def test_the_stops_of_a_journey_exist(journey: str) -> None:
    text = section("### Four journeys")
    (told,) = (part for part in text.split("\n\n") if part.strip().startswith(f"{journey}:"))
    stops = re.findall(r"`([\w/]+\.py)`", told)
    assert len(stops) > 3
    assert [stop for stop in stops if not (ROOT / stop).is_file()] == []
