"""A real Chromium for the tests, through Playwright; where one of the two is missing, the test is skipped.

The browser is the one in PATH: Playwright's own builds are downloads that not every machine may fetch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rasura.evaluation.evidence_report.print_pdf import find_browser

__all__ = ["find_axe", "opened_page"]

ROOT = Path(__file__).parents[2]


@contextmanager
def opened_page(source: Path, width: int, height: int, **context: Any) -> Iterator[Any]:
    """A page of the browser, with what it asked the network for in `page.asked`, and what it complained of."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    browser = find_browser()
    if browser is None:
        pytest.skip("needs Chromium in PATH: apt-get install chromium")
    with playwright.sync_playwright() as play:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = play.chromium.launch(executable_path=browser, args=root)
        try:
            page = chromium.new_context(viewport={"width": width, "height": height}, **context).new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: asked.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: asked.append(f"error: {error}"))
            page.goto(source.as_uri())
            yield page, asked
        finally:
            chromium.close()


def find_axe() -> str:
    """The source of axe-core, from `make axe` or where AXE_CORE says; else the test is skipped."""
    for path in (os.environ.get("AXE_CORE", ""), ROOT / ".venv" / "axe-core" / "package" / "axe.min.js"):
        if path and Path(path).is_file():
            return Path(path).read_text(encoding="utf-8")
    pytest.skip("needs axe-core: make axe")
