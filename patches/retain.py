"""Retain sets: the concepts that an erasure must leave alone, from a person's file."""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches.concepts import normal
from rasura.patches.errors import FormatError, NotFoundError, RetainSetError
from rasura.patches.fields import show
from rasura.patches.names import Digest
from rasura.patches.tensorfile import read_regular

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

RETAIN_LIMIT: Final = 256 * 1024 * 1024
"""Most bytes of a retain file: a million lines of 200 characters."""


@dataclass(frozen=True, slots=True)
class RetainSet:
    """Concepts in the file's order, each once.

    Attributes:
        source: the file's name without its folder.
        concepts: single spaces, not empty, unique.
        removed: concepts of the file that name a target and are therefore not retained.
    """

    source: str
    concepts: tuple[str, ...]
    removed: tuple[str, ...] = ()

    @property
    def sha256(self) -> Digest:
        """SHA-256 over the retained concepts in UTF-8, each followed by a newline."""
        return Digest(hashlib.sha256("".join(f"{c}\n" for c in self.concepts).encode()).hexdigest())

    def without(self, targets: Iterable[str]) -> "RetainSet":
        """The set without concepts that hold a target's name as words of their own; they are listed in `removed`.

        Raises:
            RetainSetError: nothing is left.
        """
        names_one = naming(targets)
        named = [c for c in self.concepts if names_one(c)]
        left = tuple(c for c in self.concepts if c not in set(named))
        if not left:
            raise RetainSetError(
                f"{self.source} holds nothing but the concepts to erase: expected others", hint="--retain FILE"
            )
        return RetainSet(self.source, left, (*self.removed, *named))


def naming(targets: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds one of the names as words of its own, whatever its case and spacing."""
    # Not \b, which finds no end of a word after the last sign of "C++".
    patterns = [re.compile(rf"(?<!\w){re.escape(normal(target))}(?!\w)") for target in targets]
    return lambda text: any(pattern.search(normal(text)) for pattern in patterns)


def load_retain_set(path: Path, column: str | None = None) -> RetainSet:
    """Read one concept a line (`#` starts a comment), or one column of a CSV file.

    Args:
        path: a text file, or a `.csv` file with a header.
        column: which CSV column; by default `concept`, else the first.

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
    lines = _column(path, text, column) if path.suffix.lower() == ".csv" else _lines(text)
    concepts = tuple(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not concepts:
        raise RetainSetError(f"retain file {path} names no concept: expected one a line", hint="--retain FILE")
    if odd := next((c for c in concepts if _CONTROL.search(c)), None):
        raise RetainSetError(f"retain file {path} is no plain text: it holds {show(odd)}", hint="--retain FILE")
    return RetainSet(path.name, concepts)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def _column(path: Path, text: str, column: str | None) -> list[str]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names = list(rows.fieldnames or ())
        chosen = column or ("concept" if "concept" in names else next(iter(names), ""))
        if chosen not in names:
            raise RetainSetError(
                f"{path} has no column {show(chosen)}: expected one of {show(names)}", hint="--retain-column NAME"
            )
        return [row[chosen] or "" for row in rows]
    except csv.Error as error:
        raise RetainSetError(f"{path} is not CSV: {error}", hint="--retain FILE") from None
