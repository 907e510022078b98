"""The report in a real Chromium: nothing asked for, nothing complained of, nothing that runs out of the page; axe."""

from pathlib import Path
from typing import Any

import pytest
from support.browser import find_axe, opened_page
from support.evidence_reports import shared_report

from rasura.evaluation.evidence_report.print_pdf import find_browser, print_pdf

SIZES = {"desktop": (1280, 900), "phone": (360, 740)}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_bytes(shared_report().page)
    return file


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_shows_everything_without_script_or_network(page_file: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    with opened_page(page_file, width, height, color_scheme=scheme, java_script_enabled=False) as (page, asked):
        assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
        assert page.locator("h2").count() == 11
        assert page.get_by_text("11 of 12 (92%").first.is_visible()


@pytest.mark.parametrize("size", SIZES)
def test_nothing_runs_out_of_the_page_and_every_picture_is_there(page_file: Path, size: str) -> None:
    width, height = SIZES[size]
    with opened_page(page_file, width, height) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(sizes) == 7
        assert all(sizes)
        grounds = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(grounds)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(grounds) != light
        page.emulate_media(media="print", color_scheme="light")
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page_file: Path, size: str, scheme: str) -> None:
    axe = find_axe()
    width, height = SIZES[size]
    with opened_page(page_file, width, height, color_scheme=scheme, bypass_csp=True) as (page, _):
        page.evaluate(axe)
        found: Any = page.evaluate("axe.run()")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_it_is_printed() -> None:
    if find_browser() is None:
        pytest.skip("needs Chromium in PATH: apt-get install chromium")
    assert print_pdf(shared_report().page).startswith(b"%PDF-")
