"""One text a line: comments, numbers and bullets, and what shows that the lines are something else.

A text file says nothing of itself, so that whatever looks like another format is refused with its line: a table, a
header, JSON, lines that were pasted with their quotes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.lists.role import Role

__all__ = ["CONTROL", "SEPARATORS", "read_lines_of_text", "split_lines"]

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
SEPARATORS: Final = {",": "CSV", ";": "CSV with semicolons", "\t": "TSV"}
_QUOTED: Final = re.compile(r"""(["'])(?:(?!\1).)+\1,?""")
_JSON: Final = re.compile(r"""[\[\]{}],?|(?:\{\s*"|\[\s*["{]).*""")  # `{} style` is a template
_LISTED: Final = re.compile(r"([0-9]{1,7})[.)][ \t]+(\S.*)")
_BULLET: Final = re.compile("([-*\u2022])[ \t]+(\\S.*)")  # a bullet sign among them


def split_lines(text: str) -> list[str]:
    r"""Lines end at `\n`, `\r\n` or, in files that have no other, `\r`; U+2028 ends none."""
    return [line.removesuffix("\r") for line in text.split("\n" if "\n" in text else "\r")]


def read_lines_of_text(path: Path, text: str, role: Role) -> tuple[str, int, list[tuple[int, str]]]:
    """What kind of lines these are, how many comments stand between them, and line and text of each.

    Raises:
        RasuraError: the role's, for lines that are no plain text or look like another format.
    """
    lines: list[tuple[int, str]] = []
    comments = 0
    for number, line in enumerate(split_lines(text), 1):
        found = line.strip(" \t\ufeff\u00a0\u3000")
        if found.startswith("#"):
            comments += 1
        elif found:
            _check_line(path, found, number, role)
            lines.append((number, found))
    if lines:
        _check_header(path, *lines[0], role)
    for kind, pattern in (("numbered lines", _LISTED), ("lines with bullets", _BULLET)):
        if _all_marked(lines, pattern):
            return kind, comments, list(_unmarked(path, lines, pattern, role))
    return "lines", comments, lines


def _check_line(path: Path, line: str, number: int, role: Role) -> None:
    if "\t" in line:
        raise role.refuse(path, "holds a tab: expected one text a line; a table's name ends in .tsv", number)
    if CONTROL.search(line):
        raise role.refuse(path, f"is no plain text: it holds {show(line)}", number)
    if "\u2028" in line or "\u2029" in line:
        raise role.refuse(path, "holds a line separator (U+2028): expected lines that end at a newline", number)
    if _QUOTED.fullmatch(line):
        said = f"stands in quotes, as in a program: expected the text alone, got {show(line)}"
        raise role.refuse(path, f"{said}; lines of JSON stand in a .jsonl file", number)
    if _JSON.fullmatch(line):
        raise role.refuse(path, f"looks like JSON that is broken or cut: expected a text, got {show(line)}", number)


def _check_header(path: Path, number: int, line: str, role: Role) -> None:
    if role.knows(line):
        raise role.refuse(
            path, f"is {show(line)}, a column's name: expected a text; a table's name ends in .csv", number
        )
    for separator, kind in SEPARATORS.items():
        cells = split_cells(line, separator)
        if len(cells) > 1 and any(map(role.knows, cells)):
            said = f"looks like the header of a table: expected a text; the name of {kind} ends in .csv"
            raise role.refuse_column(path, said, tuple(cells), number)


def split_cells(line: str, separator: str) -> list[str]:
    """The cells of a header, without blanks around them; none where it is no CSV."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, strict=True), [])]
    except csv.Error:
        return []


def _all_marked(lines: Sequence[tuple[int, str]], pattern: re.Pattern[str]) -> bool:
    """Whether the first lines are marked; a list of one line is not, because "1. FC Köln" is a club."""
    if len(lines) < 2 or not all(pattern.fullmatch(line) for _, line in lines[:2]):  # noqa: PLR2004
        return False
    if pattern is _BULLET:
        return True
    first, second = (int(line.partition(".")[0].partition(")")[0]) for _, line in lines[:2])
    return second == first + 1 or all(pattern.fullmatch(line) for _, line in lines)


def _unmarked(
    path: Path, lines: Sequence[tuple[int, str]], pattern: re.Pattern[str], role: Role
) -> Iterator[tuple[int, str]]:
    expected = ""
    for number, line in lines:
        found = pattern.fullmatch(line)
        if found is None or (expected and found[1] != expected):
            said = f"breaks the list above it: expected {expected!r} at its beginning, got {show(line)}"
            raise role.refuse(path, said, number)
        expected = found[1] if pattern is _BULLET else str(int(found[1]) + 1)
        yield number, found[2]
