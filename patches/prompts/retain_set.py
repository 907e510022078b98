"""Retain sets: the concepts that an erasure must leave alone, from a person's file."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import RetainSetError
from rasura.patches.lists.list_text import LIST_LIMIT
from rasura.patches.lists.read_list import TextList, read_list
from rasura.patches.lists.role import HELD_OUT_FILE, RETAIN, Role
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import Digest

RETAIN_LIMIT: Final = LIST_LIMIT
"""Most bytes of a retain set's words."""


@dataclass(frozen=True, slots=True)
class RetainSet:
    """Concepts in the file's order, each once.

    Attributes:
        source: the file's name without its folder.
        concepts: single spaces, not empty, unique.
        removed: concepts of the file that name a target and are therefore not retained.
        whole: whether the lines are whole prompts, which stand in no template.
        repeated: how many lines of the file said again what another line had said.
        cut: how many concepts were cut to what the text encoder reads.
        cuttable: whether those that are too long may be cut.
        origin: the file as it was read; None of a set that came otherwise.
    """

    source: str
    concepts: tuple[str, ...]
    removed: tuple[str, ...] = ()
    whole: bool = False
    repeated: int = 0
    cut: int = 0
    cuttable: bool = field(default=False, compare=False)
    origin: TextList | None = field(default=None, compare=False, repr=False)

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


HeldOut: TypeAlias = "tuple[str, ...] | RetainSet"
"""Words on which leak is only measured, or the list that they were read from."""


def naming(targets: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds one of the names as words of its own, whatever its case and spacing."""
    # Not \b, which finds no end of a word after the last sign of "C++".
    patterns = [re.compile(rf"(?<!\w){re.escape(normal(target))}(?!\w)") for target in targets]
    return lambda text: any(pattern.search(normal(text)) for pattern in patterns)


def find_named(text: str, names: Iterable[str], own: Iterable[str]) -> str | None:
    """The first of the names that a text holds, besides those that are its owner's own."""
    mine = set(map(normal, own))
    return next((name for name in names if normal(name) not in mine and naming([name])(text)), None)


def load_retain_set(path: str | Path, column: str | None = None, *, truncate: bool = False) -> RetainSet:
    """Read a retain file: `FILE` or `FILE:COLUMN`, in any format of `rasura.patches.lists.read_list`.

    Texts of a column that is called `prompt` or `caption` are whole prompts and stand in no template.

    Args:
        path: the file, perhaps with a colon and the columns behind it.
        column: the columns, where they do not stand behind the file's name.
        truncate: texts that are longer than the text encoder reads may be cut.

    Raises:
        NotFoundError: no such file.
        RetainSetError: empty, broken, or with more than one way to read it.
    """
    return _read(path, RETAIN, column, truncate=truncate)


def load_held_out(path: str | Path, *, truncate: bool = False) -> RetainSet:
    """Read a file of words or prompts on which leak is only measured, as `load_retain_set` does.

    Raises:
        NotFoundError: no such file.
        ListError: empty, broken, or with more than one way to read it.
    """
    return _read(path, HELD_OUT_FILE, None, truncate=truncate)


def load_texts(path: str | Path, role: Role) -> tuple[str, ...]:
    """The texts of another list: anchors, templates.

    Raises:
        NotFoundError: no such file.
        ListError: empty, broken, or with more than one way to read it.
    """
    return read_list(path, role).texts


def _read(path: str | Path, role: Role, column: str | None, *, truncate: bool) -> RetainSet:
    found = read_list(path, role, column)
    return RetainSet(
        found.source,
        found.texts,
        whole=found.whole,
        repeated=found.repeated,
        cuttable=truncate,
        origin=found,
    )
