"""Requests as people keep them: a table, JSON, a YAML list, or one concept a line.

    concept,anchor,names,templates,ticket,received-at,requester,deadline
    dog,cat,puppy | Hund,a {} | a photo of a {},T-1201,2026-11-02,estate of A. Painter,2026-11-30

Only `concept` must be there. `names` and `templates` are lists; in a cell of a table, texts that `|` parts. In place of
templates, which have one `{}` each, the name of a file with one prompt a line may stand, beside the request file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError, RasuraError
from rasura.patches.format.manifest import NAMES_SIGN
from rasura.patches.lists.list_rows import read_rows
from rasura.patches.lists.list_text import read_list_text
from rasura.patches.lists.role import REQUESTS, TEMPLATES
from rasura.patches.prompts.concept_prompts import AUTO, SLOT
from rasura.patches.prompts.retain_set import load_texts
from rasura.registry.takedown.wanted import TICKET, WantedConcept

__all__ = ["MAX_BYTES", "MAX_REQUESTS", "read_wanted"]

MAX_BYTES: Final = 1024 * 1024
MAX_REQUESTS: Final = 1000
_LISTS: Final = ("names", "templates")
_NAMES: Final = ("concept", "anchor", *_LISTS, *TICKET)
_HINT: Final = "rasura takedown --file requests.csv --dry-run"


def read_wanted(path: Path, templates: tuple[str, ...] = ()) -> tuple[WantedConcept, ...]:
    """Read a request file.

    Args:
        path: any format of `rasura.patches.lists.list_rows`.
        templates: for requests that bring none.

    Raises:
        NotFoundError: no such file.
        InputError: a request that breaks the format; the first ten are named, each with its place.
    """
    text = read_list_text(path, REQUESTS, MAX_BYTES)
    found: list[WantedConcept] = []
    flaws: list[str] = []
    for place, fields in _objects(path, text):
        if len(found) >= MAX_REQUESTS:
            raise InputError(f"{path.name}: expected at most {MAX_REQUESTS} requests, got more", hint=_HINT)
        try:
            found.append(_wanted(fields, path.parent, templates))
        except RasuraError as error:
            flaws.append(f"{place}: {error.message}")
    if flaws:
        more = f" (and {len(flaws) - 10} more)" if len(flaws) > 10 else ""  # noqa: PLR2004
        raise InputError(f"{path.name}: {'; '.join(flaws[:10])}{more}", hint=_HINT)
    if not found:
        raise InputError(f"{path.name} holds no request: expected at least one concept", hint=_HINT)
    return tuple(found)


def _objects(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every request with its place; what is empty in a table was not said."""
    rows = read_rows(path, text, REQUESTS)
    if rows.apart:
        raise REQUESTS.refuse(path, "is one object: expected a list of requests")
    for line, row in rows.items:
        fields = {"concept": row} if isinstance(row, str) else {n: value for n, value in row.items() if value != ""}
        yield f"line {line}", fields


def _wanted(fields: Mapping[str, object], folder: Path, templates: tuple[str, ...]) -> WantedConcept:
    known = {str(name).strip().lower().replace("-", "_"): value for name, value in fields.items()}
    if odd := sorted(known.keys() - set(_NAMES)):
        raise InputError(f"expected {', '.join(_NAMES)}, got {show(odd[0])}")
    texts = {name: _text(name, known.get(name, "")) for name in _NAMES if name not in _LISTS}
    own = _templates(known.get("templates", ()), folder) or templates
    return WantedConcept(
        texts["concept"],
        texts["anchor"] or AUTO,
        own,
        texts["ticket"],
        texts["received_at"],
        texts["requester"],
        texts["deadline"],
        _texts("names", known.get("names", ()), "a list of names"),
    )


def _text(name: str, value: object) -> str:
    # A YAML date and a number are texts to whoever wrote them.
    if isinstance(value, list | dict | bool | None):
        raise InputError(f"{name}: expected a text, got {show(value)}")
    return " ".join(str(value).split())


def _templates(value: object, folder: Path) -> tuple[str, ...]:
    if isinstance(value, str) and value and SLOT not in value:
        if Path(value).name != value:  # a request file may come from a stranger
            raise InputError(f"templates: expected the name of a file beside the requests, got {show(value)}")
        return load_texts(folder / value, TEMPLATES)
    return _texts("templates", value, "a list of prompts or a file's name")


def _texts(name: str, value: object, expected: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(NAMES_SIGN) if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InputError(f"{name}: expected {expected}, got {show(value)}")
