"""Writes the tables of docs/hosts.md of what was seen of every family, or with --check compares.

`python docs/tools/families.py [--check]`

The rows are what `tests/cli/families/test_more_families.py` and `test_native_files.py` beside it saw of tiny models of
the real classes when they last ran as `make families`, and wrote to docs/results/families.json and spellings.json;
every other run of them must see the same. A row of the table of families that no run has carried through is refused
here. Only widths are those of the published models. The first table is of the families whose layers read their
encoders' own states, the second of those whose pipeline reads the prompt, the third of native names.
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
_MARKS: Final = ("older families", "families", "spellings")
_SEES: Final = {"pooled": "pooled", "stream": "mixed with time step and picture", "picture": "the picture alone"}
_OLDER_HEAD: Final = (
    "| Family | Text encoders (width) | `--layers` | They read, behind | Looks like it, and reads | Positions | "
    "Erased by | Bit for bit | Stock LoRA |\n|---|---|---|---|---|---|---|---|---|\n"
)
_HEAD: Final = (
    "| Family | Read by (width) | `--layers` | They read, behind | Positions | Looks ahead | Erased by | Bit for bit | "
    "Stock LoRA | Draws |\n|---|---|---|---|---|---|---|---|---|---|\n"
)
_NATIVE_HEAD: Final = (
    "| Family | `--layers` | Called there | One file of the denoiser | diffusers, of a `native` file | "
    "diffusers, of a `kohya` file |\n|---|---|---|---|---|---|\n"
)


def table(*, older: bool) -> str:
    """A table of the page, with its head.

    Args:
        older: of the families that read their encoders' own states.

    Raises:
        SystemExit: a family of which no run has seen anything.
    """
    seen: list[dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else []
    rows = []
    for family in FAMILIES:
        if (family.encoders[0].kind != "pipeline") != older:
            continue
        own = [one for one in seen if one["family"] == family.name]
        if not own:
            sys.exit(f"{RECORD.name} has nothing of {family.name}; run `make families`")
        row = _older_row if older else _row
        rows += [row(family, one) for one in sorted(own, key=lambda one: str(one["layers"]), reverse=True)]
    return (_OLDER_HEAD if older else _HEAD) + "".join(rows)


def _older_row(family: Family, seen: dict[str, Any]) -> str:
    read = {encoder.component for part in family.sequence for encoder in part}
    encoders = [
        f"{encoder.kind} ({encoder.width})" + ("" if encoder.component in read else ", pooled alone")
        for encoder in family.encoders
    ]
    alike = {_short(pattern): _SEES[reads] for pattern, reads in seen["alike"]}
    entrances = seen["layers"] == "kv" and all(layer["reads"] == "text" for layer in seen["touched"])
    cells = (
        family.name,
        ", ".join(encoders),
        "`text`" if seen["layers"] == "text" else "`k`, `v`, `kv`" + (", `text`" if entrances else ""),
        _touched(seen["touched"]),
        "; ".join(
            f"{', '.join(f'`{name}`' for name in alike if alike[name] == reads)}: {reads}"
            for reads in dict.fromkeys(alike.values())
        ),
        f"{seen['positions']}, filling {seen['filling']}",
        ", ".join(f"`{method}`" for method in seen["methods"]),
        ", ".join(seen["bits"]),
        seen["lora"],
    )
    return f"| {' | '.join(cells)} |\n"


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
    names = list(dict.fromkeys(f"`{_short(layer['pattern'])}`" for layer in layers))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""  # noqa: PLR2004
    behind = ", ".join(f"`{name.partition('.')[2]}`" for name in layers[0]["through"])
    return ", ".join(names[:2]) + more + (f"; behind {behind}" if behind else "")


def _short(pattern: str) -> str:
    return str(pattern).split("*.")[-1].removeprefix("transformer.").removeprefix("unet.")


def _put(page: str, start: str, rows: str, end: str) -> str:
    """The page with these rows between two marks."""
    before, _, rest = page.partition(start)
    return f"{before}{start}{rows}{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = page
    tables = (table(older=True), table(older=False), native_table())
    for mark, rows in zip(_MARKS, tables, strict=True):
        start, end = f"<!-- {mark}: written by docs/tools/families.py -->\n", f"<!-- /{mark} -->\n"
        wanted = _put(wanted, start, rows, end)
    if "--check" not in sys.argv:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != page:
        sys.exit(f"{PAGE.name} does not show the families as they are; run `make fix`")


if __name__ == "__main__":
    main()
