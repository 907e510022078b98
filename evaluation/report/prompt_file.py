"""A person's own prompts: a JSONL or CSV file with a prompt a row, and what each should and should not show.

    {"prompt": "a dog in the rain", "group": "forget", "object": "dog", "seed": 7, "kind": "direct"}

`prompt`, `group` (forget, retain or held_out) and at least one of `object`, `style` and `label` are needed. Without
`seed` a row's number, counted from 0, is its seed; without `kind` it is `direct`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue, show
from rasura.patches.errors import ConceptError, FormatError, InputError, NotFoundError
from rasura.patches.models.text_encoder import TextEncoder

if TYPE_CHECKING:
    from _csv import Reader

AXES: Final = ("object", "style", "label")
GROUPS: Final = ("forget", "retain", "held_out")
MAX_SEED: Final = 2**53 - 1
_FILE_LIMIT: Final = 64 * 2**20
_ROW_LIMIT: Final = 2**16
_KIND: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_COLUMNS: Final = ("prompt", "seed", "group", *AXES, "kind")


def read_questions(path: Path, encoder: TextEncoder) -> tuple[Question, ...]:
    """The questions of a prompt file, in its order.

    Args:
        path: `.csv`, or JSON lines.
        encoder: the model's, which says how long a prompt may be.

    Raises:
        NotFoundError: no such file.
        InputError: no row, or a bad one; the message names its line.
    """
    text = read_text(path)
    rows = _csv_rows(text, path) if path.suffix.lower() == ".csv" else _json_rows(text, path)
    found = tuple(_question(row, index, where, encoder) for index, (where, row) in enumerate(rows))
    if not found:
        raise InputError(f"{path}: expected a prompt a row, got no row")
    return found


def read_text(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        NotFoundError: no such file.
        InputError: too large, or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"expected a prompt file at {path}, got {error.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise InputError(f"{path}: expected at most {_FILE_LIMIT} bytes, got {len(data)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None


def read_rows(text: str, path: Path) -> tuple[tuple[str, ...], Iterator[tuple[str, Mapping[str, str]]]]:
    """The columns of a CSV text, and its rows: where each ends, and its cells by column.

    Raises:
        InputError: a column twice; while reading, a row with more or fewer cells, or one that is no CSV. All but the
            first name their line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = tuple(next(reader, ()))
    except csv.Error as error:
        raise InputError(f"{path.name}:1: expected CSV, got {error}") from None
    if twice := [name for i, name in enumerate(columns) if name in columns[:i]]:
        raise InputError(f"{path.name}:1: expected each column once, got {show(twice[0])} twice")
    return columns, _cells(reader, columns, path)


def _cells(reader: Reader, columns: tuple[str, ...], path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        for row in reader:
            where = f"{path.name}:{reader.line_num}"
            if not row:
                continue  # a blank line
            if len(row) != len(columns):
                raise InputError(f"{where}: expected {len(columns)} cells, as the first line has, got {len(row)}")
            yield where, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path.name}:{reader.line_num}: expected CSV, got {error}") from None


def check_prompt(encoder: TextEncoder, prompt: str, where: str) -> None:
    """Refuse a prompt that the text encoder would cut off.

    Raises:
        InputError: naming it.
    """
    try:
        encoder.ids(prompt)
    except ConceptError as error:
        raise InputError(f"{where}: {error.message}", hint="shorten the prompt") from None


def _json_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path.name}:{number}"
            try:
                value = canonical_json.parse(line.encode(), what=where, limit=_ROW_LIMIT)
            except FormatError as error:
                raise InputError(error.message, hint=_hint()) from None
            if not isinstance(value, Mapping):
                raise InputError(f"{where}: expected an object, got {show(value)}", hint=_hint())
            yield where, value


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    columns, rows = read_rows(text, path)
    if unknown := [name for name in columns if name not in _COLUMNS]:
        raise InputError(f"{path.name}:1: expected columns among {', '.join(_COLUMNS)}, got {show(unknown[0])}")
    for where, row in rows:
        cells: dict[str, JsonValue] = {name: value for name, value in row.items() if value != ""}
        if "seed" in cells:
            cells["seed"] = _seed(str(cells["seed"]), where)
        yield where, cells


def _seed(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise InputError(f"{where}: seed: expected an integer from 0 to {MAX_SEED}, got {show(text)}")
    return int(text)


def _question(row: Mapping[str, JsonValue], index: int, where: str, encoder: TextEncoder) -> Question:
    fields = Fields.of(row, where)
    try:
        prompt, group = fields.text("prompt"), fields.choice("group", GROUPS)
        seed = fields.integer("seed", 0, MAX_SEED) if fields.has("seed") else index
        kind = fields.text("kind", _KIND) if fields.has("kind") else "direct"
        wanted = {axis: fields.text(axis, limit=512) for axis in AXES if fields.has(axis)}
        fields.done()
    except FormatError as error:
        raise InputError(error.message, hint=_hint()) from None
    if not wanted or "" in wanted.values():
        raise InputError(f"{where}: expected what to look for in one of {', '.join(AXES)}, got none", hint=_hint())
    if not prompt.strip():
        raise InputError(f"{where}: expected a prompt, got blanks", hint=_hint())
    check_prompt(encoder, prompt, where)
    return Question(group, Shot(prompt, seed), wanted, kind)


def _hint() -> str:
    return 'a row: {"prompt": "a dog in the rain", "group": "forget", "object": "dog"}'
