"""The tables of the model's card, from what the report stage measured.

    python -m examples.crowded_world.training.card --work ~/.cache/rasura/crowded-world

Writes between the marks of examples/crowded_world/README.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rasura.evaluation.report.metrics import compute_wilson

_FEWEST: Final = 3  # of fewer pictures a share says nothing
README: Final = Path(__file__).parents[1] / "README.md"


def list_rows(report: Mapping[str, Any], judge: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The card's tables, line by line."""
    yield "| Asked for | | Object right | Category right | Style right | n |"
    yield "|---|---|---|---|---|---|"
    for section, groups in report["tables"].items():
        for group in ("all", *(name for name in groups if name != "all")):
            row = groups[group]
            if row["n"] < _FEWEST:
                continue
            cells = [_share(row[axis], row["n"]) for axis in ("object", "category", "style")]
            yield f"| {section if group == 'all' else ''} | {group} | {' | '.join(cells)} | {row['n']} |"
    yield ""
    drawn = f"{report['steps']} DDIM steps, guidance {report['guidance_scale']:g}, float32"
    yield f"{drawn}. In percent, with 95 % intervals (Wilson 1927)."
    yield ""
    yield "| The judge, on | Object right | Category right | Style right | n |"
    yield "|---|---|---|---|---|"
    for name, what in (
        ("fresh", "drawings that it learnt, placed anew"),
        ("test", "a set of drawings that it never saw"),
    ):
        row = judge[name]
        cells = [_share(row[axis], int(row["n"])) for axis in ("object", "category", "style")]
        yield f"| {what} | {' | '.join(cells)} | {int(row['n'])} |"


def _share(share: float, n: int) -> str:
    low, high = compute_wilson(round(share * n), n)
    return f"{100 * share:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "rasura" / "crowded-world")
    work = parser.parse_args().work
    report = json.loads((work / "report.json").read_text(encoding="utf-8"))
    judge = json.loads((work / "judge" / "accuracy.json").read_text(encoding="utf-8"))
    text = "\n".join(list_rows(report, judge))
    page = README.read_text(encoding="utf-8")
    page = re.sub(r"(<!-- card -->).*?(<!-- /card -->)", lambda m: f"{m[1]}\n\n{text}\n\n{m[2]}", page, flags=re.DOTALL)
    README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
