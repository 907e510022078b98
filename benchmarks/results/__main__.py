"""Every table and picture of docs/results.md, on the reference model.

    python benchmarks/results [STAGE…]      methods, ablation, growth, scenes, attacks; without a name all of them

Patches and pictures are kept in `.results`: a run that was cut off goes on where it stopped; nothing is drawn twice.
Numbers go to docs/results/STAGE.json, tables and pictures into the page.
"""

from __future__ import annotations

import argparse

from bench import Bench, keep
from origin import machine
from page import PAGE, rewritten
from stages import STAGES


def main() -> None:
    """Run the stages that were named, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="*", choices=[[], *STAGES, "page"], help="what to run")
    chosen = parser.parse_args().stage or list(STAGES)
    if chosen != ["page"]:
        bench = Bench()
        for name in chosen:
            STAGES[name](bench)
        keep("machine", machine())
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
