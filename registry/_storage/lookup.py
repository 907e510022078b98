"""Finding one row by what a person types: a full identifier, an abbreviation of it, or a name."""

import re
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from rasura.patches._io.json_fields import show
from rasura.patches.errors import AmbiguousIdError, NotFoundError

__all__ = ["MIN_ABBREVIATION", "expand_id", "found"]

MIN_ABBREVIATION: Final = 4
"""Fewest digits of an abbreviation; fewer would soon name several things."""

_SHOWN: Final = 8
_HEX: Final = re.compile(rf"[0-9a-f]{{{MIN_ABBREVIATION},64}}")


def expand_id(session: Session, column: InstrumentedAttribute[str], prefix: str, noun: str, hint: str) -> str:
    """The only identifier that begins with these hexadecimal digits.

    Raises:
        NotFoundError: none does, or these are no 4 to 64 hexadecimal digits.
        AmbiguousIdError: several do; they are in `details["candidates"]`.
    """
    digits = prefix.lower()
    if not _HEX.fullmatch(digits):
        raise NotFoundError(
            f"{noun}: expected at least {MIN_ABBREVIATION} hexadecimal digits, got {show(prefix)}", hint=hint
        )
    query = select(column).where(column.startswith(digits)).order_by(column).limit(_SHOWN + 1)
    candidates = list(session.scalars(query))
    if not candidates:
        raise NotFoundError(f"{noun}: expected one that begins with {digits}, got none", hint=hint)
    if len(candidates) > 1:
        shown = ", ".join(c[:12] for c in candidates[:_SHOWN]) + (", …" if len(candidates) > _SHOWN else "")
        raise AmbiguousIdError(
            f"{noun}: {digits} begins several: {shown}", hint="type more digits", candidates=candidates[:_SHOWN]
        )
    return candidates[0]


def found(row: Any, noun: str, ref: str, hint: str) -> Any:
    """The row itself.

    Raises:
        NotFoundError: it is None.
    """
    if row is None:
        raise NotFoundError(f"{noun}: expected one called {show(ref)}, got none", hint=hint)
    return row
