"""Requests as people keep them: a table, a YAML list, or one JSON object a line.

    concept,anchor,templates,ticket,received-at,requester,deadline
    dog,cat,a {} | a photo of a {},T-1201,2026-11-02,estate of A. Painter,2026-11-30

Only `concept` must be there. `templates` is a list; in a cell of a table, prompts with one `{}` that `|` parts; or the
name of a file with one prompt a line, beside the request file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches._io.json_fields import show
from rasura.patches.errors import FormatError, InputError, NotFoundError, RasuraError
from rasura.patches.prompts.concept_prompts import SLOT
from rasura.patches.prompts.nearest_anchor import AUTO
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.registry.takedown.wanted import TICKET, Wanted

__all__ = ["MAX_BYTES", "MAX_REQUESTS", "read_wanted"]

MAX_BYTES: Final = 1024 * 1024
MAX_REQUESTS: Final = 1000
_NAMES: Final = ("concept", "anchor", "templates", *TICKET)
_HINT: Final = "rasura takedown --file requests.csv --dry-run"


def read_wanted(path: Path, templates: tuple[str, ...] = ()) -> tuple[Wanted, ...]:
    """Read a request file.

    Args:
        path: `.csv`, `.yaml`, `.yml`, `.jsonl` or `.ndjson`.
        templates: for requests that bring none.

    Raises:
        NotFoundError: no such file.
        InputError: a request that breaks the format; the first ten are named, each with its place.
    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
    except NotFoundError:
        raise NotFoundError(f"request file {path} does not exist", hint=_HINT) from None
    except (UnicodeDecodeError, FormatError) as error:
        raise InputError(f"request file {path} cannot be read: {error}", hint=_HINT) from None
    found: list[Wanted] = []
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
    match path.suffix.lower():
        case ".csv":
            yield from _rows(path, text)
        case ".jsonl" | ".ndjson":
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    yield f"line {number}", _object(_json(path, number, line), f"line {number}")
        case ".yaml" | ".yml":
            yield from _listed(path, text)
        case other:
            raise InputError(f"{path}: expected a .csv, .yaml or .jsonl file, got {other or 'no ending'}", hint=_HINT)


def _rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row:  # more cells than the header has: a comma that stands in no quotes
                raise InputError(
                    f"{path.name}, {place}: expected {len(reader.fieldnames or ())} cells, got more; a text with a "
                    "comma stands in double quotes",
                    hint=_HINT,
                )
            if any(cell for cell in row.values()):
                yield place, {name: cell for name, cell in row.items() if cell}
    except csv.Error as error:
        raise InputError(f"{path.name}: line {reader.line_num} is no CSV: {error}", hint=_HINT) from None


def _json(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: line {number} is no JSON: {error}", hint=_HINT) from None


def _listed(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path.name} is no YAML: {' '.join(str(error).split())[:200]}", hint=_HINT) from None
    if not isinstance(document, list):
        raise InputError(f"{path.name}: expected a list of requests, got {type(document).__name__}", hint=_HINT)
    for number, item in enumerate(document, 1):
        yield f"request {number}", _object(item, f"request {number}")


def _object(item: object, place: str) -> Mapping[str, object]:
    if isinstance(item, str):
        return {"concept": item}
    if not isinstance(item, dict):
        raise InputError(f"{place}: expected an object with a concept, got {show(item)}", hint=_HINT)
    return item


def _wanted(fields: Mapping[str, object], folder: Path, templates: tuple[str, ...]) -> Wanted:
    known = {str(name).strip().lower().replace("-", "_"): value for name, value in fields.items()}
    if odd := sorted(known.keys() - set(_NAMES)):
        raise InputError(f"expected {', '.join(_NAMES)}, got {show(odd[0])}")
    texts = {name: _text(name, known.get(name, "")) for name in _NAMES if name != "templates"}
    own = _templates(known.get("templates", ()), folder) or templates
    return Wanted(
        texts["concept"],
        texts["anchor"] or AUTO,
        own,
        texts["ticket"],
        texts["received_at"],
        texts["requester"],
        texts["deadline"],
    )


def _text(name: str, value: object) -> str:
    # A YAML date and a number are texts to whoever wrote them.
    if isinstance(value, list | dict | bool | None):
        raise InputError(f"{name}: expected a text, got {show(value)}")
    return " ".join(str(value).split())


def _templates(value: object, folder: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        if value and SLOT not in value:
            if Path(value).name != value:  # a request file may come from a stranger
                raise InputError(f"templates: expected the name of a file beside the requests, got {show(value)}")
            return load_retain_set(folder / value).concepts
        return tuple(part.strip() for part in value.split("|") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InputError(f"templates: expected a list of prompts or a file's name, got {show(value)}")
