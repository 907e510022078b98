"""Writes two tables of docs/hosts.md, or with --check compares: families whose pipeline reads, and native names.

`python docs/tools/families.py [--check]`

The rows are what `tests/cli/families/test_more_families.py` and `test_native_files.py` beside it saw of tiny models of
the real classes when they last ran as `make families`, and wrote to docs/results/families.json and spellings.json;
every other run of them must see the same. A row of the table of families that no run has carried through is refused
here. Only the width is that of the published models.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from rasura.patches.format.spellings.catalogue import SPELLINGS
from rasura.patches.models.families import FAMILIES
from rasura.patches.models.family import Family

_DOCS: Final = Path(__file__).parents[1]
PAGE: Final = _DOCS / "hosts.md"
RECORD: Final = _DOCS / "results" / "families.json"
NATIVE: Final = _DOCS / "results" / "spellings.json"
_START: Final = "<!-- families: written by docs/tools/families.py -->\n"
_END: Final = "<!-- /families -->\n"
_HEAD: Final = (
    "| Family | Read by (width) | `--layers` | They read, behind | Positions | Looks ahead | Erased by | Bit for bit | "
    "Stock LoRA | Draws |\n|---|---|---|---|---|---|---|---|---|---|\n"
)
_NATIVE_START: Final = "<!-- spellings: written by docs/tools/families.py -->\n"
_NATIVE_END: Final = "<!-- /spellings -->\n"
_NATIVE_HEAD: Final = (
    "| Family | `--layers` | Called there | One file of the denoiser | diffusers, of a `native` file | "
    "diffusers, of a `kohya` file |\n|---|---|---|---|---|---|\n"
)


def table() -> str:
    """The table of the page, with its head.

    Raises:
        SystemExit: a family of which no run has seen anything.
    """
    seen: list[dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else []
    rows = []
    for family in FAMILIES:
        if family.encoders[0].kind != "pipeline":
            continue
        own = [one for one in seen if one["family"] == family.name]
        if not own:
            sys.exit(f"{RECORD.name} has nothing of {family.name}; run `make families`")
        rows += [_row(family, one) for one in sorted(own, key=lambda one: str(one["layers"]), reverse=True)]
    return _HEAD + "".join(rows)


def native_table() -> str:
    """The table of native names, with its head.

    Raises:
        SystemExit: a family of which no run has seen anything.
    """
    seen: list[dict[str, str]] = json.loads(NATIVE.read_text(encoding="utf-8")) if NATIVE.is_file() else []
    rows = []
    for family in FAMILIES:
        if family.components[0] == "unet":
            continue
        own = [one for one in seen if one["family"] == family.name]
        if not own and family.name in SPELLINGS:
            sys.exit(f"{NATIVE.name} has nothing of {family.name}; run `make families`")
        if not own:
            rows.append(f"| {family.name} | | none known | | | |\n")
        for one in sorted(own, key=lambda one: one["layers"], reverse=True):
            layers = "`text`" if one["layers"] == "text" else "`k`, `v`, `kv`"
            cells = (family.name, layers, f"`{one['module']}`", one["file"], one["native"], one["kohya"])
            rows.append(f"| {' | '.join(cells)} |\n")
    return _NATIVE_HEAD + "".join(rows)


def _row(family: Family, seen: dict[str, Any]) -> str:
    layers = "`text`" if seen["layers"] == "text" else "`k`, `v`, `kv`"
    cells = (
        family.name,
        f"{seen['pipeline']}, {seen['encoder']} ({family.encoders[0].width})",
        layers,
        _touched(seen["touched"]),
        f"{seen['positions']}, filling {seen['filling']}",
        "yes" if seen["ahead"] else "no",
        ", ".join(f"`{method}`" for method in seen["methods"]),
        ", ".join(seen["bits"]),
        seen["lora"],
        seen["draws"],
    )
    return f"| {' | '.join(cells)} |\n"


def _touched(layers: list[dict[str, Any]]) -> str:
    names = [f"`{_short(layer['pattern'])}`" for layer in layers[:2]]
    more = f" and {len(layers) - 2} more" if len(layers) > 2 else ""  # noqa: PLR2004
    behind = ", ".join(f"`{name.partition('.')[2]}`" for name in layers[0]["through"])
    return ", ".join(names) + more + (f"; behind {behind}" if behind else "")


def _short(pattern: str) -> str:
    return str(pattern).split("*.")[-1].removeprefix("transformer.")


def _put(page: str, start: str, rows: str, end: str) -> str:
    """The page with these rows between two marks."""
    before, _, rest = page.partition(start)
    return f"{before}{start}{rows}{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = _put(_put(page, _START, table(), _END), _NATIVE_START, native_table(), _NATIVE_END)
    if "--check" not in sys.argv:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != page:
        sys.exit(f"{PAGE.name} does not show the families as they are; run `make fix`")


if __name__ == "__main__":
    main()
