"""A person's own prompts: a table or JSON with a prompt a row, and what each should and should not show.

    {"prompt": "a dog in the rain", "group": "forget", "object": "dog", "seed": 7, "kind": "direct"}

`prompt`, `group` (forget, retain or held_out) and at least one of `object`, `style` and `label` are needed. Without
`seed` a row's number, counted from 0, is its seed; without `kind` it is `direct`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.patches._io.json_fields import Fields, JsonValue, show
from rasura.patches.errors import ConceptError, FormatError, InputError
from rasura.patches.lists.list_rows import TABLES, Rows, read_rows
from rasura.patches.lists.list_text import read_list_text
from rasura.patches.lists.role import PROMPTS
from rasura.patches.models.text_encoders.text_encoder import TextEncoder

AXES: Final = ("object", "style", "label")
GROUPS: Final = ("forget", "retain", "held_out")
MAX_SEED: Final = 2**53 - 1
_FILE_LIMIT: Final = 64 * 2**20
_KIND: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_COLUMNS: Final = ("prompt", "seed", "group", *AXES, "kind")


def read_questions(path: Path, encoder: TextEncoder) -> tuple[Question, ...]:
    """The questions of a prompt file, in its order.

    Args:
        path: any format of `rasura.patches.lists.list_rows`, with columns or fields.
        encoder: the model's, which says how long a prompt may be.

    Raises:
        NotFoundError: no such file.
        InputError: no row, or a bad one; the message names its line.
    """
    rows = read_prompt_rows(path)
    if rows.format in TABLES and (unknown := [name for name in rows.columns if name not in _COLUMNS]):
        raise PROMPTS.refuse(
            path, f"is no header of prompts: expected columns among {', '.join(_COLUMNS)}, got {show(unknown[0])}", 1
        )
    table = rows.format in TABLES
    found = tuple(
        _question(_cells(row, where) if table else row, index, where, encoder)
        for index, (where, row) in enumerate(_objects(path, rows))
    )
    if not found:
        raise InputError(f"{path}: expected a prompt a row, got no row")
    return found


def read_prompt_rows(path: Path) -> Rows:
    """The rows of a prompt file, in any format of `rasura.patches.lists.list_rows`.

    Raises:
        NotFoundError: no such file.
        InputError: too large, not UTF-8, broken, or one text a line, which says not what to look for.
    """
    rows = read_rows(path, read_list_text(path, PROMPTS, _FILE_LIMIT), PROMPTS)
    if rows.apart:
        raise PROMPTS.refuse(path, "is one object: expected one a prompt", hint=_hint())
    return rows


def _objects(path: Path, rows: Rows) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    for line, row in rows.items:
        if isinstance(row, str):
            raise PROMPTS.refuse(path, f"holds {show(row)}: expected an object", line, hint=_hint())
        yield f"{path.name}, line {line}", cast("Mapping[str, JsonValue]", row)


def check_prompt(encoder: TextEncoder, prompt: str, where: str) -> None:
    """Refuse a prompt that the text encoder would cut off.

    Raises:
        InputError: naming it.
    """
    try:
        encoder.ids(prompt)
    except ConceptError as error:
        raise InputError(f"{where}: {error.message}", hint="shorten the prompt") from None


def _cells(row: Mapping[str, JsonValue], where: str) -> Mapping[str, JsonValue]:
    """A table's row: cells that are empty were not said, and seeds are texts there."""
    cells: dict[str, JsonValue] = {name: value for name, value in row.items() if value != ""}
    if "seed" in cells:
        cells["seed"] = _seed(str(cells["seed"]), where)
    return cells


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
