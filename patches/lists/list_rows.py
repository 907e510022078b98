"""From a list's text to rows: which format it is in, which columns it has, and each row with its line.

Name and content decide together. `.csv` and `.tsv` are tables with a header; `.json` and `.jsonl` are JSON, of one
document or one value a line, as the text shows; `.yaml` is YAML; any other name is one text a line, unless all of it is
a JSON array or object.
"""

from __future__ import annotations

import csv
import io
import re
from _csv import Reader
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.lists.json_items import JsonFlawError, ends_early, parse_json, walk_array, walk_object
from rasura.patches.lists.plain_lines import SEPARATORS, read_lines_of_text, split_cells, split_lines
from rasura.patches.lists.role import Role

__all__ = ["TABLES", "Rows", "read_rows"]

TABLES: Final = frozenset(SEPARATORS.values())
"""Formats with a header and cells that are texts."""

YAML_LIMIT: Final = 4 * 1024 * 1024
"""Most characters of a YAML document, whose parser takes minutes for more."""

_ENDINGS: Final = {".csv": "", ".tsv": "\t", ".tab": "\t"}
_JSON: Final = (".json", ".jsonl", ".ndjson")
_YAML: Final = (".yaml", ".yml")
_SAID: Final = re.compile(r"sep=([,;\t])")  # how Excel is told


@dataclass(frozen=True, slots=True)
class Rows:
    """A list's rows, read one after the other.

    Attributes:
        format: what it was read as, in words.
        columns: names of a table's columns, or of the first object's fields; none where rows are texts.
        items: line, counted from 1, and the row: a text, or values by name.
        apart: whether each item holds one column only, because the file is an object of arrays.
        comments: lines that were comments.
    """

    format: str
    columns: tuple[str, ...]
    items: Iterator[tuple[int, str | Mapping[str, object]]]
    apart: bool = False
    comments: int = 0


def read_rows(path: Path, text: str, role: Role) -> Rows:
    """The rows of a list.

    Args:
        path: its name counts, and errors name it.
        text: what is in it.
        role: what it is for.

    Raises:
        RasuraError: the role's: a file that is not what its name says, a header that is none, a column twice; while
            the rows are read, one that is broken. All name their line.
    """
    ending = path.suffix.lower()
    if ending in _ENDINGS:
        return _table(path, text, _ENDINGS[ending], role)
    if ending in _YAML:
        return _yaml(path, text, role)
    if ending in _JSON or _is_json(text):
        return _json(path, text, role)
    kind, comments, lines = read_lines_of_text(path, text, role)
    return Rows(kind, (), iter(lines), comments=comments)


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(path: Path, text: str, separator: str, role: Role) -> Rows:
    lines = io.StringIO(text, newline="")
    skipped = 0
    said = _SAID.fullmatch(text[:7].partition("\n")[0].strip())
    if said and not separator:
        separator, skipped = said[1], 1
        lines.readline()
    place = lines.tell()
    while (header := lines.readline()) and not header.strip():
        place, skipped = lines.tell(), skipped + 1
    lines.seek(place)
    separator = separator or _separator(path, header, skipped + 1, role)
    records = _records(path, csv.reader(lines, delimiter=separator, strict=True), skipped, role)
    first, cells = next(records, (1, []))
    columns = tuple(cell.strip() for cell in cells)
    if twice := [name for i, name in enumerate(columns) if name in columns[:i]]:
        raise role.refuse_column(path, f"names the column {show(twice[0])} twice: expected once", columns, first)
    return Rows(SEPARATORS[separator], columns, _rows(path, columns, records, role))


def _separator(path: Path, header: str, line: int, role: Role) -> str:
    """What parts the header's cells; where several could, the one that gives a column which is known."""
    header = header.rstrip("\r\n")
    found = {separator: split_cells(header, separator) for separator in SEPARATORS}
    several = {separator: cells for separator, cells in found.items() if len(cells) > 1}
    if len(several) > 1:
        several = {separator: cells for separator, cells in several.items() if any(map(role.knows, cells))}
        if len(several) != 1:
            raise role.refuse(path, f"could be parted at several signs: expected one, got {show(header)}", line)
    return next(iter(several), ",")


def _records(path: Path, reader: Reader, before: int, role: Role) -> Iterator[tuple[int, list[str]]]:
    """Line on which each record begins, and its cells; blank lines are none."""
    while True:
        start = before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = before + reader.line_num
            if "unexpected end of data" in str(error):
                raise role.refuse(path, "opens a quote that is never closed", start) from None
            over = f" (as far as line {last})" if last > start else ""
            raise role.refuse(path, f"is no CSV: {error}{over}", start) from None
        if any(cell.strip() for cell in cells):
            yield start, cells


def _rows(
    path: Path, columns: tuple[str, ...], records: Iterator[tuple[int, list[str]]], role: Role
) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, cells in records:
        if len(cells) != len(columns):
            raise role.refuse(
                path,
                f"has {_many(len(cells), 'cell')}, its header {_many(len(columns), 'column')}: expected as many; a "
                "text that holds the separator stands in double quotes",
                line,
            )
        yield line, dict(zip(columns, cells, strict=True))


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# --- JSON -----------------------------------------------------------------------------------------------------------


def _is_json(text: str) -> bool:
    """Whether all of a text file is a JSON array or an object that holds something; `{} style` is a template."""
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        return bool(parse_json(text))
    except JsonFlawError:
        return text.lstrip()[1:].lstrip().startswith('"') and ends_early(text)


def _json(path: Path, text: str, role: Role) -> Rows:
    start = text.lstrip()[:1]
    lines = path.suffix.lower() != ".json" or ends_early(text)
    if start == "[" and not (lines and ends_early(text)):
        return _objects(path, "JSON", walk_array(text), role)
    if start == "{" and not lines and path.suffix.lower() == ".json":
        return _arrays(path, text, role)
    if start == "{" and path.suffix.lower() not in _JSON and not ends_early(text):
        return _arrays(path, text, role)
    return _objects(path, "JSONL", _json_lines(text), role)


def _json_lines(text: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(split_lines(text), 1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except JsonFlawError as error:
                raise JsonFlawError(number, error.said) from None


def _objects(path: Path, form: str, values: Iterable[tuple[int, object]], role: Role) -> Rows:
    """Texts and objects; the columns are the first one's."""
    items = _checked(path, values, role)
    first = next(items, None)
    if first is None:
        return Rows(form, (), iter(()))
    columns = tuple(first[1]) if isinstance(first[1], Mapping) else ()
    return Rows(form, columns, chain([first], items))


def _checked(
    path: Path, values: Iterable[tuple[int, object]], role: Role
) -> Iterator[tuple[int, str | Mapping[str, object]]]:
    try:
        for line, value in values:
            if not isinstance(value, str | Mapping):
                raise role.refuse(path, f"holds {show(value)}: expected a text or an object", line)
            if isinstance(value, Mapping) and not all(isinstance(name, str) for name in value):
                raise role.refuse(path, f"holds {show(value)}: expected names that are texts", line)
            yield line, value
    except JsonFlawError as error:
        raise role.refuse(path, f"is no JSON: {error.said}", error.line) from None


def _arrays(path: Path, text: str, role: Role) -> Rows:
    """An object of arrays: its names are columns."""
    columns: dict[str, None] = {}
    items: list[tuple[int, str | Mapping[str, object]]] = []
    try:
        for name, line, value, inside in walk_object(text):
            columns[name] = None
            items.append((line, {name: value if inside else (value,)}))
    except JsonFlawError as error:
        raise role.refuse(path, f"is no JSON: {error.said}", error.line) from None
    return Rows("JSON", tuple(columns), iter(items), apart=True)


# --- YAML -----------------------------------------------------------------------------------------------------------


def _yaml(path: Path, text: str, role: Role) -> Rows:
    import yaml

    if len(text) > YAML_LIMIT:
        raise role.refuse(
            path, f"has {len(text)} characters of YAML: expected at most {YAML_LIMIT}; JSON may be longer"
        )
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise role.refuse(path, f"is no YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(document, list) or not isinstance(node, yaml.SequenceNode):
        raise role.refuse(path, f"is no list: expected one of texts or objects, got {type(document).__name__}")
    lines = (part.start_mark.line + 1 for part in node.value)
    return _objects(path, "YAML", zip(lines, document, strict=True), role)
