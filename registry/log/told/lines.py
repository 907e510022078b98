"""What one entry tells of rows, and how it is said that tables and log are not of one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NoReturn

from rasura.patches.errors import AuditError
from rasura.patches.types import Digest
from rasura.registry.log.told.file import Line

__all__ = ["read_line", "refuse"]

_HINT: Final = "rasura audit verify"


def read_line(body: bytes, leaf: bytes, root: bytes) -> Line:
    """What of an entry's bytes decisions rest on; that they were signed is found out by the caller."""
    try:
        said = json.loads(body)
        changes = tuple(_change((c["kind"], c["id"], c.get("record"))) for c in said.get("changes", ()))
        return Line(leaf, root, said["type"], said["outcome"]["status"], said.get("closes"), changes)
    except (ValueError, TypeError, KeyError, AttributeError):
        refuse("an entry is no JSON of this format")


def _change(said: Sequence[str | None]) -> tuple[str, str, Digest | None]:
    kind, key, record = said
    if not isinstance(kind, str) or not isinstance(key, str):
        raise TypeError
    return kind, key, None if record is None else Digest(record)


def refuse(message: str, check: str = "tables") -> NoReturn:
    """Say that tables and log are not of one another.

    Raises:
        AuditError: always.
    """
    raise AuditError(f"audit log: {message}", hint=_HINT, check=check)
