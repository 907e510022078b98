"""Retain sets: the concepts that an erasure must leave alone, from a person's file."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches._io.json_fields import show
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, NotFoundError, RetainSetError
from rasura.patches.prompts.concept_prompts import normal
from rasura.patches.types import Digest

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_WHOLE: Final = ("prompt", "caption")
_KNOWN: Final = ("concept", *_WHOLE)

RETAIN_LIMIT: Final = 256 * 1024 * 1024
"""Most bytes of a retain file: a million lines of 200 characters."""


@dataclass(frozen=True, slots=True)
class RetainSet:
    """Concepts in the file's order, each once.

    Attributes:
        source: the file's name without its folder.
        concepts: single spaces, not empty, unique.
        removed: concepts of the file that name a target and are therefore not retained.
        whole: whether the lines are whole prompts, which stand in no template.
        repeated: how many lines of the file said again what another line had said.
    """

    source: str
    concepts: tuple[str, ...]
    removed: tuple[str, ...] = ()
    whole: bool = False
    repeated: int = 0

    @property
    def text(self) -> str:
        """The retained concepts, each followed by a newline."""
        return "".join(f"{c}\n" for c in self.concepts)

    @property
    def sha256(self) -> Digest:
        """SHA-256 over `text` in UTF-8."""
        return digest_of(self.text.encode())

    def without(self, targets: Iterable[str], *, strict: bool = False) -> "RetainSet":
        """The set without concepts that hold a target's name as words of their own; they are listed in `removed`.

        Args:
            targets: the concepts to erase.
            strict: refuse instead, and refuse repeated lines too.

        Raises:
            RetainSetError: nothing is left, or with `strict`: something would have to be left out.
        """
        names_one = naming(targets)
        named = {c: None for c in self.concepts if names_one(c)}
        left = tuple(c for c in self.concepts if c not in named)
        if strict and (named or self.repeated):
            what = f"names a target: {', '.join(list(named)[:3])}" if named else f"repeats {self.repeated} lines"
            raise RetainSetError(f"{self.source} {what}: expected neither, as --strict asks", hint="--retain FILE")
        if not left:
            raise RetainSetError(
                f"{self.source} holds nothing but the concepts to erase: expected others", hint="--retain FILE"
            )
        return replace(self, concepts=left, removed=(*self.removed, *named))


def naming(targets: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds one of the names as words of its own, whatever its case and spacing."""
    # Not \b, which finds no end of a word after the last sign of "C++".
    patterns = [re.compile(rf"(?<!\w){re.escape(normal(target))}(?!\w)") for target in targets]
    return lambda text: any(pattern.search(normal(text)) for pattern in patterns)


def load_retain_set(path: Path, column: str | None = None) -> RetainSet:
    """Read one concept a line (`#` starts a comment), one column of a CSV file, or one field of a JSONL file.

    Lines of a column or field that is called `prompt` or `caption` are whole prompts and stand in no template.

    Args:
        path: a text file, a `.csv` file with a header, or a `.jsonl` file with one object or string a line.
        column: which CSV column or JSONL field; by default `concept`, `prompt` or `caption`, else the first.

    Raises:
        RetainSetError: missing, empty, not text, or without that column.
    """
    try:
        text = read_regular(path, RETAIN_LIMIT).decode("utf-8-sig")
    except NotFoundError:
        raise RetainSetError(f"retain file {path} does not exist", hint="--retain FILE") from None
    except UnicodeDecodeError as error:
        flaw = f"{error.reason} at byte {error.start}"
        raise RetainSetError(f"retain file {path} is not UTF-8 text: {flaw}", hint="--retain FILE") from None
    except FormatError as error:
        raise RetainSetError(f"retain file {path} cannot be read: {error.message}", hint="--retain FILE") from None
    chosen, lines = _chosen(path, text, column)
    named = [" ".join(line.split()) for line in lines if line.strip()]
    concepts = tuple(dict.fromkeys(named))
    if not concepts:
        raise RetainSetError(f"retain file {path} names no concept: expected one a line", hint="--retain FILE")
    if odd := next((c for c in concepts if _CONTROL.search(c)), None):
        raise RetainSetError(f"retain file {path} is no plain text: it holds {show(odd)}", hint="--retain FILE")
    return RetainSet(path.name, concepts, whole=chosen in _WHOLE, repeated=len(named) - len(concepts))


def _chosen(path: Path, text: str, column: str | None) -> tuple[str, list[str]]:
    """The name of the column that was read, and its values."""
    match path.suffix.lower():
        case ".csv":
            return _column(path, text, column)
        case ".jsonl" | ".ndjson":
            return _field(path, text, column)
        case _:
            return "", [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def _preferred(names: list[str], column: str | None) -> str:
    return column or next((name for name in _KNOWN if name in names), next(iter(names), ""))


def _column(path: Path, text: str, column: str | None) -> tuple[str, list[str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names = list(rows.fieldnames or ())
        chosen = _preferred(names, column)
        if chosen not in names:
            raise _no_column(path, chosen, names)
        return chosen, [row[chosen] or "" for row in rows]
    except csv.Error as error:
        raise RetainSetError(f"{path} is not CSV: {error}", hint="--retain FILE") from None


def _field(path: Path, text: str, column: str | None) -> tuple[str, list[str]]:
    chosen, values = column, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise RetainSetError(
                f"{path}, line {number}: expected JSON, got {show(line)}", hint="--retain FILE"
            ) from None
        if isinstance(row, str):
            values.append(row)
            continue
        if not isinstance(row, dict):
            raise RetainSetError(
                f"{path}, line {number}: expected an object or a string, got {show(line)}", hint="--retain FILE"
            )
        chosen = chosen or _preferred(list(row), None)
        if not isinstance(row.get(chosen), str):
            raise _no_column(path, chosen, list(row), f", line {number}")
        values.append(row[chosen])
    return chosen or "", values


def _no_column(path: Path, chosen: str, names: list[str], where: str = "") -> RetainSetError:
    return RetainSetError(
        f"{path}{where} has no text column {show(chosen)}: expected one of {show(names)}", hint="--retain-column NAME"
    )
