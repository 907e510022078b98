"""The code of docs/extending is run as it stands, on a tiny model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.commandline import rasura
from support.models.tiny import TinySpec, tiny_model

from rasura.cli import cli

PAGES = Path(__file__).parents[2] / "docs" / "extending"


def executed(page: str) -> dict[str, Any]:
    """The names that the page's Python leaves behind; blocks share one namespace, lines are those of the page."""
    path = PAGES / page
    text = path.read_text()
    space: dict[str, Any] = {"__name__": path.stem.replace("-", "_")}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert blocks
    for block in blocks:
        before = text[: block.start(1)].count("\n")
        exec(compile("\n" * before + block[1], str(path), "exec"), space)
    return space


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the pages are read, with what they call `model`."""
    tiny_model(tmp_path / "model", TinySpec(size="medium"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_page_is_here() -> None:
    assert {page.name for page in PAGES.iterdir()} == {
        f"your-first-{what}.md" for what in ("eraser", "host", "command")
    }


def test_your_first_eraser(model: Path) -> None:
    found = executed("your-first-eraser.md")
    assert found["patch"].manifest.concept.text == "dog"
    assert found["Straight"].name == "straight"


def test_your_first_host(model: Path) -> None:
    found = executed("your-first-host.md")
    assert found["before"] == found["disk"].digests(found["names"])
    with pytest.raises(found["UnsupportedHostError"]):
        found["host"].read(["unet.ghost"])


def test_your_first_command(tmp_path: Path) -> None:
    try:
        executed("your-first-command.md")
        assert rasura("init", "--actor", "alice", cwd=tmp_path).code == 0
        run = rasura("actors", "--json", cwd=tmp_path)
        assert run.data == {"actors": [{"name": "alice", "entries": 1}]}
        assert "alice  1" in rasura("actors", cwd=tmp_path).out
        shown = re.search(r'^\{"ok".*?("data": .*), …\}$', (PAGES / "your-first-command.md").read_text(), re.MULTILINE)
        assert shown is not None
        assert json.loads(f"{{{shown[1]}}}")["data"] == run.data
        assert rasura("actors", "--json", "--registry", "nowhere", cwd=tmp_path).code == 1
    finally:
        cli.commands.pop("actors", None)
