"""Every table and picture of docs/composer.md that is measured, on the reference model.

    python benchmarks/composer/composer.py [STAGE…]      words, study, together, page; without a name all of them

Patches and pictures are kept in `.results`: a run that was cut off goes on where it stopped; nothing is drawn twice.
Numbers go to docs/composer/STAGE.json, tables and pictures into the page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from bench import Bench
from composer_page import FOLDER, write_page
from origin import machine
from study import figure, study
from together import back_grid, together
from words import words

STAGES = {"words": words, "study": study, "together": together}


def main() -> None:
    """Run the stages that were named, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="*", choices=[[], *STAGES, "page"], help="what to run")
    chosen = parser.parse_args().stage or list(STAGES)
    FOLDER.mkdir(exist_ok=True)
    if chosen != ["page"]:
        origin, bench = machine(), Bench()  # before anything is written, which would make the commit a changed one
        figure(bench, FOLDER / "interference.png")
        back_grid(bench, FOLDER / "back.png")
        for name in (name for name in STAGES if name in chosen):
            _keep(name, STAGES[name](bench))
        _keep("machine", origin)
    write_page()


def _keep(name: str, found: object) -> None:
    """Six digits are more than any of these numbers is known to."""
    text = json.dumps(_short(found), indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(_flat(text) + "\n", encoding="utf-8")


def _short(value: object) -> object:
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {key: _short(item) for key, item in value.items()}
        case list() | tuple():
            return [_short(item) for item in value]
        case _:
            return value


def _flat(text: str) -> str:
    """Innermost lists and objects on one line each."""
    inner = re.compile(r"([\[{])\s*\n([^\[\]{}]*?)\n\s*([\]}])")
    return inner.sub(lambda m: m[1] + " ".join(line.strip() for line in m[2].split("\n")) + m[3], text)


if __name__ == "__main__":
    main()
