"""Tables between `<!-- table: name -->` and `<!-- end -->` of docs/takedowns.md, written by the scripts beside this."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "reference_model"
OUT = ROOT / "docs" / "takedowns"
PAGE = ROOT / "docs" / "takedowns.md"


def fill(name: str, text: str) -> None:
    """Put a table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    pattern = rf"(<!-- table: {name} -->).*?(<!-- end -->)"
    found = re.sub(pattern, lambda m: f"{m[1]}\n\n{text.strip()}\n\n{m[2]}", page, count=1, flags=re.DOTALL)
    PAGE.write_text(found, encoding="utf-8")


def describe_machine() -> str:
    """Where and with what the numbers were made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread for torch; torch "
        f"{torch.__version__}; commit {commit}."
    )
