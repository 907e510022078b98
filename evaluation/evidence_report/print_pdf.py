"""The page as PDF, printed by the Chromium that is at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from rasura.patches.errors import InputError, OutputError

__all__ = ["find_browser", "print_pdf"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS: Final = 120


def find_browser() -> str | None:
    """The program, None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def print_pdf(page: bytes) -> bytes:
    """Print a page; it loads nothing, so nothing leaves this machine.

    Raises:
        InputError: there is no Chromium here.
        OutputError: it did not print.
    """
    browser = find_browser()
    if browser is None:
        raise InputError(
            "a PDF is printed by Chromium: expected one in PATH, got none", hint="apt-get install chromium"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "report.html", Path(folder) / "report.pdf"
        source.write_bytes(page)
        # Inside a container there is no sandbox for root; the page has no script and loads nothing.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [browser, "--headless", *root, "--disable-gpu", f"--user-data-dir={folder}/profile",
                   "--no-pdf-header-footer", f"--print-to-pdf={target}", source.as_uri()]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OutputError(f"{browser}: expected a PDF, got {type(error).__name__}") from None
        if not target.is_file():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise OutputError(f"{browser}: expected a PDF, got exit code {done.returncode}: {said[-1] if said else ''}")
        return target.read_bytes()
