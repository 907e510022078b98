"""Writes the tables of docs/hosts.md of what was seen of every family, or with --check compares.

`python docs/tools/families.py [--check]`

The rows are what `tests/cli/families/test_more_families.py` saw of tiny models of the real classes when it last ran as
`make families`, and wrote to docs/results/families.json; every other run of it must see the same. A row of the table of
families that no run has carried through is refused here. Only widths are those of the published models. The first table
is of the families whose layers read their encoders' own states, the second of those whose pipeline reads the prompt.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from rasura.patches.models.families import FAMILIES
from rasura.patches.models.family import Family

_DOCS: Final = Path(__file__).parents[1]
PAGE: Final = _DOCS / "hosts.md"
RECORD: Final = _DOCS / "results" / "families.json"
_MARKS: Final = ("older families", "families")
_SEES: Final = {"pooled": "pooled", "stream": "mixed with time step and picture", "picture": "the picture alone"}
_OLDER_HEAD: Final = (
    "| Family | Text encoders (width) | `--layers` | They read, behind | Looks like it, and reads | Positions | "
    "Erased by | Bit for bit | Stock LoRA |\n|---|---|---|---|---|---|---|---|---|\n"
)
_HEAD: Final = (
    "| Family | Read by (width) | `--layers` | They read, behind | Positions | Looks ahead | Erased by | Bit for bit | "
    "Stock LoRA | Draws |\n|---|---|---|---|---|---|---|---|---|---|\n"
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


def main() -> None:
    """Write the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = page
    for mark in _MARKS:
        start, end = f"<!-- {mark}: written by docs/tools/families.py -->\n", f"<!-- /{mark} -->\n"
        before, _, rest = wanted.partition(start)
        _, _, after = rest.partition(end)
        wanted = f"{before}{start}{table(older=mark == _MARKS[0])}{end}{after}"
    if "--check" not in sys.argv:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != page:
        sys.exit(f"{PAGE.name} does not show the families as they are; run `make fix`")


if __name__ == "__main__":
    main()
