"""What a list is for: how messages call it, the option that names it, and the column names that say so themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import ListError, RasuraError, RetainSetError

__all__ = ["ANCHORS", "HELD_OUT_FILE", "KINDS", "NAMES", "PROMPTS", "REQUESTS", "RETAIN", "TEMPLATES", "Role"]

KINDS: Final[Mapping[str, bool]] = {"concept": False, "prompt": True, "caption": True}
"""What a column may hold, and whether its texts are whole prompts, which stand in no template."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a list is for.

    Attributes:
        what: how a message calls the file.
        option: the option that names it, or the command where there is none.
        known: columns that need not be named, lower-case and singular.
        error: what a bad file raises.
    """

    what: str
    option: str
    known: tuple[str, ...] = tuple(KINDS)
    error: type[RasuraError] = ListError
    columns: bool = field(default=True, kw_only=True)

    @property
    def hint(self) -> str:
        """What to type next."""
        return f"{self.option} FILE" if self.option.startswith("--") else self.option

    def refuse(self, path: Path, said: str, line: int | None = None, *, hint: str = "") -> RasuraError:
        """The error for a file, or for one of its lines, counted from 1."""
        where = "" if line is None else f", line {line}"
        details = {"file": str(path)} | ({} if line is None else {"line": line})
        return self.error(f"{self.what} {path}{where} {said}", hint=hint or self.hint, **details)

    def refuse_column(self, path: Path, said: str, columns: tuple[str, ...], line: int | None = None) -> RasuraError:
        """The same, with the columns that there are, and how one is named."""
        named = ", ".join(show(name) for name in columns[:_NAMED]) + (", …" if len(columns) > _NAMED else "")
        hint = f"{self.option} {path}:COLUMN" if self.columns else self.hint
        return self.refuse(path, f"{said}; its columns are {named or 'none'}", line, hint=hint)

    def knows(self, column: str) -> str:
        """The known column that a name means, whatever its case and number; "" for none."""
        name = column.strip().casefold()
        return next((known for known in self.known if name in {known, f"{known}s"}), "")


_NAMED: Final = 20  # columns in one message

RETAIN: Final = Role("retain file", "--retain", error=RetainSetError)
HELD_OUT_FILE: Final = Role("held-out file", "--held-out")
ANCHORS: Final = Role("file of anchors", "--anchors", ("anchor", "concept"))
TEMPLATES: Final = Role("template file", "--templates", ("template", "prompt"))
NAMES: Final = Role("file of names", "--names", ("name", "synonym", "concept"))
REQUESTS: Final = Role("request file", "rasura takedown --file requests.csv --dry-run", ("concept",), columns=False)
PROMPTS: Final = Role("prompt file", "rasura evaluate --prompts FILE.jsonl", ("prompt",), columns=False)
