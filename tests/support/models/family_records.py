"""What the whole-promise test saw of each family: the table of docs/hosts.md is made of it.

With RECORD_FAMILIES=1 (`make families`) a run writes what it saw; any other run must see what is written.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

__all__ = ["RECORD", "SPELLINGS", "keep_or_compare"]

_RESULTS: Final = Path(__file__).parents[3] / "docs" / "results"
RECORD: Final = _RESULTS / "families.json"
SPELLINGS: Final = _RESULTS / "spellings.json"
"""What the test of native files saw."""


def keep_or_compare(seen: dict[str, Any], record: Path = RECORD) -> None:
    """Write what was seen of a family and a choice of layers, or hold it against what is written.

    Which methods have erased in it differs with how much a run repeats (`tests/support/full.py`); null-space always has.
    """
    known: list[dict[str, Any]] = json.loads(record.read_text()) if record.is_file() else []
    mine = [one for one in known if _key(one) == _key(seen)]
    if os.environ.get("RECORD_FAMILIES") == "1":
        others = [one for one in known if _key(one) != _key(seen)]
        record.write_text(json.dumps(sorted([*others, seen], key=_key), indent=1) + "\n")
        return
    assert mine, f"{_key(seen)} is not in {record.name}: make families"
    (written,) = mine
    assert {**seen, **({"methods": written["methods"]} if "methods" in written else {})} == written, "make families"


def _key(record: dict[str, Any]) -> tuple[str, str]:
    return record["family"], record["layers"]
