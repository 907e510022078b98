"""One reader for every list of texts: words to retain, held-out words, anchors, templates.

`FILE`, or `FILE:COLUMN`. Nothing is guessed: where a table has several columns and none or several have a name that
says what they hold, the file is refused, and the refusal lists them.

    words.csv:label            the column `label`
    words.csv:label,synonym    two columns, row by row
    coco.csv:text=prompt       the column `text`, whose texts are whole prompts
    captions.txt:prompt        a file without columns, whose lines are whole prompts
    scenes.json:*              every column
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.lists.list_rows import TABLES, Rows, read_rows
from rasura.patches.lists.list_text import read_list_text
from rasura.patches.lists.plain_lines import CONTROL
from rasura.patches.lists.role import KINDS, Role

__all__ = ["TextList", "read_list", "split_source"]

ALL: Final = "*"
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:[.,:_-][0-9]+)*")


@dataclass(frozen=True, slots=True, eq=False)
class TextList:
    """The texts of a list in its order, each once, and how they were read.

    Attributes:
        source: the file's name without its folder.
        format: what it was read as, in words.
        columns: which were read; none of a file without columns.
        texts: single spaces, not empty, unique.
        lines: on which line of the file each text stood first, counted from 1.
        whole: whether the texts are whole prompts.
        rows: rows or lines that are no comment.
        blank: cells that were empty.
        repeated: texts that said again what another had said.
        comments: lines that were comments.
    """

    source: str
    format: str
    columns: tuple[str, ...]
    texts: tuple[str, ...]
    lines: Sequence[int] = field(repr=False)
    whole: bool
    rows: int
    blank: int
    repeated: int
    comments: int

    def place(self, text: str) -> str:
        """The file, and the line on which a text of it stood first."""
        return f"{self.source}, line {self.lines[self.texts.index(text)]}" if text in self.texts else self.source


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    whole: bool


def split_source(source: str | Path, column: str | None = None) -> tuple[Path, str]:
    """The file and what was said of its columns, "" for nothing.

    A colon may stand in a file's name: the longest beginning that is there counts.
    """
    text = str(source)
    if column is not None or os.path.lexists(text):
        return Path(text), column or ""
    colons = [at for at, sign in enumerate(text) if sign == ":" and at > 0]
    found = next((at for at in reversed(colons) if os.path.lexists(text[:at])), None)
    return (Path(text), "") if found is None else (Path(text[:found]), text[found + 1 :])


def read_list(source: str | Path, role: Role, column: str | None = None) -> TextList:
    """Read a list.

    Args:
        source: `FILE` or `FILE:COLUMN`.
        role: what it is for.
        column: which columns, as behind the colon.

    Raises:
        NotFoundError: nothing is there.
        RasuraError: the role's: empty, broken, or with more than one way to read it.
    """
    path, asked = split_source(source, column)
    rows = read_rows(path, read_list_text(path, role), role)
    columns = _chosen(path, rows, asked, role) if rows.columns else ()
    whole = any(own.whole for own in columns) if columns else _kind_of_lines(path, asked, role)
    texts: dict[str, int] = {}
    count = blank = said = 0
    line = 0
    for line, value in _values(path, rows, columns, role):
        if value is None:
            count += 1
            continue
        text = " ".join(value.split())
        if not text:
            blank += 1
            continue
        _check_text(path, value, text, line, role)
        said += 1
        texts.setdefault(text, line)
    if not texts:
        raise role.refuse(path, "names no concept: expected one a line")
    if all(map(_NUMBER.fullmatch, texts)):
        raise _numbers(path, rows, columns, role)
    lines = array("L", texts.values())
    return TextList(
        path.name,
        rows.format,
        tuple(own.name for own in columns),
        tuple(texts),
        lines,
        whole,
        count,
        blank,
        said - len(texts),
        rows.comments,
    )


def _numbers(path: Path, rows: Rows, columns: Sequence[_Column], role: Role) -> Exception:
    if columns:
        said = f"holds only numbers in {', '.join(show(own.name) for own in columns)}: expected texts"
        return role.refuse_column(path, said, rows.columns)
    return role.refuse(path, "holds only numbers: expected texts")


def _check_text(path: Path, value: str, text: str, line: int, role: Role) -> None:
    if "\n" in value.strip() or "\r" in value.strip():
        raise role.refuse(path, f"holds a text that goes on over the line's end: {show(value)}: is a quote open?", line)
    if CONTROL.search(text):
        raise role.refuse(path, f"is no plain text: it holds {show(text)}", line)


def _values(path: Path, rows: Rows, columns: Sequence[_Column], role: Role) -> Iterator[tuple[int, str | None]]:
    """Line and text of each chosen cell, and None behind every row."""
    for line, row in rows.items:
        if isinstance(row, str) is bool(columns):
            raise role.refuse(path, "mixes texts and objects: expected one of the two", line)
        if isinstance(row, str):
            yield line, row
        else:
            for column in columns:
                if column.name in row:
                    yield line, _text(path, row[column.name], column.name, line, role)
                elif not rows.apart:
                    raise role.refuse_column(path, f"has no column {show(column.name)}", tuple(row), line)
        yield line, None


def _text(path: Path, value: object, name: str, line: int, role: Role) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):  # beside arrays
        raise role.refuse(path, f"holds {show(value[0])} in {show(name)}: expected an array of texts", line)
    raise role.refuse(path, f"holds {show(value)} in {show(name)}: expected a text", line)


def _kind_of_lines(path: Path, asked: str, role: Role) -> bool:
    """Whether the lines of a file without columns are whole prompts."""
    if asked in {"", "concept"}:
        return False
    if asked in KINDS and asked in role.known:
        return KINDS[asked]
    kinds = " or ".join(kind for kind in KINDS if kind in role.known)
    raise role.refuse(path, f"has no columns: expected nothing or {kinds} behind its name, got {show(asked)}")


def _chosen(path: Path, rows: Rows, asked: str, role: Role) -> tuple[_Column, ...]:
    if not asked:
        name = _only(path, rows, role)
        return (_Column(name, _whole(name)),)
    found = _named(path, rows, asked, role)
    if len({own.whole for own in found}) > 1:
        whole, parts = ([own.name for own in found if own.whole is kind] for kind in (True, False))
        raise role.refuse_column(
            path,
            f"gives whole prompts in {', '.join(map(show, whole))} and concepts in {', '.join(map(show, parts))}: "
            "expected one of the two; NAME=prompt and NAME=concept say which",
            rows.columns,
        )
    return found


def _only(path: Path, rows: Rows, role: Role) -> str:
    """The one column whose name says that it holds what is looked for."""
    known = [name for name in rows.columns if role.knows(name)]
    if len(known) == 1:
        return known[0]
    expected = " or ".join(role.known)
    if known:
        raise role.refuse_column(path, f"has {' and '.join(map(show, known))}: expected the name of one", rows.columns)
    if len(rows.columns) == 1 and rows.format in TABLES:
        said = (
            f"begins with {show(rows.columns[0])}, which is no column that is known: expected {expected}, or its name; "
            "a list without a header ends in .txt"
        )
        raise role.refuse_column(path, said, rows.columns, 1)
    raise role.refuse_column(path, f"has no column {expected}: expected the name of one", rows.columns)


def _named(path: Path, rows: Rows, asked: str, role: Role) -> tuple[_Column, ...]:
    """The columns that were named: a name as it is, or several between commas, each perhaps with `=prompt`."""
    if asked == ALL and ALL not in rows.columns:
        return tuple(_Column(name, _whole(name)) for name in rows.columns)
    whole_name = [asked] if asked in rows.columns else asked.split(",")
    found: dict[str, _Column] = {}
    for part in whole_name:
        name, equals, kind = part.rpartition("=")
        if part in rows.columns:
            found.setdefault(part, _Column(part, _whole(part)))
        elif equals and name in rows.columns and kind in KINDS:
            found.setdefault(name, _Column(name, KINDS[kind]))
        else:
            raise role.refuse_column(path, f"has no text column {show(part)}", rows.columns)
    return tuple(found.values())


def _whole(name: str) -> bool:
    """Whether a column is called as columns of whole prompts are."""
    own = name.strip().casefold()
    return any(whole and own in {kind, f"{kind}s"} for kind, whole in KINDS.items())
