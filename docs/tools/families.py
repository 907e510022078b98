"""Writes the rows of docs/hosts.md of families whose pipeline reads the prompt itself, or with --check compares.

`python docs/tools/families.py [--check]`

The rows come from the table of families; that each row, Sana's `kv` apart, is what a model of the real
classes does is what `tests/cli/families/test_more_families.py` runs: base, probe, erase by three methods, check, apply
and revert on disk and live.
"""

import sys
from pathlib import Path
from typing import Final

from rasura.patches.models.families import FAMILIES, Family

PAGE: Final = Path(__file__).parents[1] / "hosts.md"
_START: Final = "<!-- families: written by docs/tools/families.py -->\n"
_END: Final = "<!-- /families -->\n"


def _row(family: Family) -> str:
    encoder = family.encoders[0]
    entrances = [r for r in family.readers if r.reads in {"text", "normed"}]
    through = family.through(entrances=True)
    behind = (
        family.through(entrances=False) if any(r.reads == "projected" and r.through for r in family.readers) else ()
    )
    first = ", ".join(f"`{_short(r.pattern)}`" for r in entrances)
    first += f", behind `{'`, `'.join(map(_module, through))}`" if through else ""
    second = f"`attn2.to_k`, `attn2.to_v`, behind `{'`, `'.join(map(_module, behind))}`" if behind else "-"
    hidden = "hidden" if encoder.masked else "read"
    ahead = "no" if encoder.causal else "yes"
    reader = f"{encoder.pipeline} ({encoder.width})"
    return f"| {family.name} | {reader} | {first} | {second} | {encoder.length}, filling {hidden} | {ahead} |\n"


def _short(pattern: str) -> str:
    return pattern.removesuffix(".weight").split("*.")[-1].removeprefix("transformer.")


def _module(name: str) -> str:
    return name.partition(".")[2]


def table() -> str:
    """The table of the page, with its head."""
    head = "| Family | Read by (width) | `--layers text` | `--layers k`, `v`, `kv` | Positions | Looks ahead |\n"
    rows = [_row(family) for family in FAMILIES if family.encoders[0].kind == "pipeline"]
    return head + "|---|---|---|---|---|---|\n" + "".join(rows)


def main() -> None:
    """Write the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    wanted = f"{before}{_START}{table()}{_END}{after}"
    if "--check" not in sys.argv:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != page:
        sys.exit(f"{PAGE.name} does not show the families as they are; run `make fix`")


if __name__ == "__main__":
    main()
