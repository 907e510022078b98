"""Finding one row by what a person types: a full identifier, an abbreviation of it, or a name."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from rasura.patches._io.json_fields import show
from rasura.patches.errors import AmbiguousIdError, NotFoundError

__all__ = ["MIN_ABBREVIATION", "begins", "expand_id", "is_abbreviation", "require_row", "suggest"]

MIN_ABBREVIATION: Final = 4
"""Fewest digits of an abbreviation; fewer would soon name several things."""

_SHOWN: Final = 8
_ABOVE: Final = "g"  # sorts behind every hexadecimal digit
_HEX: Final = re.compile(rf"[0-9a-f]{{{MIN_ABBREVIATION},64}}")


def is_abbreviation(text: str) -> bool:
    """Whether this may stand for an identifier: 4 to 64 hexadecimal digits, in either case."""
    return _HEX.fullmatch(text.lower()) is not None


def begins(column: InstrumentedAttribute[str], digits: str) -> ColumnElement[bool]:
    """Whether an identifier begins with these digits; as a range, which an index answers and LIKE does not."""
    return (column >= digits) & (column < digits + _ABOVE)


def suggest(typed: str, names: Iterable[str]) -> str:
    """`; did you mean 'dog'?` where a name is like what was typed, else ""."""
    spelt = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(typed.casefold(), spelt, n=2)
    return f"; did you mean {' or '.join(show(spelt[name]) for name in near)}?" if near else ""


def expand_id(
    session: Session,
    column: InstrumentedAttribute[str],
    prefix: str,
    noun: str,
    hint: str,
    *,
    names: InstrumentedAttribute[str] | None = None,
) -> str:
    """The only identifier that begins with these hexadecimal digits; `names` are those it might have been meant for.

    Raises:
        NotFoundError: none does, or these are no 4 to 64 hexadecimal digits.
        AmbiguousIdError: several do; they are in `details["candidates"]`.
    """
    digits = prefix.lower()
    if not _HEX.fullmatch(digits):
        known = [] if names is None else list(session.scalars(select(names).distinct()))
        what = "" if names is None else f"a {names.key} or "
        raise NotFoundError(
            f"{noun}: expected {what}at least {MIN_ABBREVIATION} hexadecimal digits of an identifier, "
            f"got {show(prefix)}{suggest(prefix, known)}",
            hint=hint,
        )
    query = select(column).where(begins(column, digits)).order_by(column).limit(_SHOWN + 1)
    candidates = list(session.scalars(query))
    if not candidates:
        raise NotFoundError(f"{noun}: expected one that begins with {digits}, got none", hint=hint)
    if len(candidates) > 1:
        shown = ", ".join(c[:12] for c in candidates[:_SHOWN]) + (", …" if len(candidates) > _SHOWN else "")
        raise AmbiguousIdError(
            f"{noun}: {digits} begins several: {shown}", hint="type more digits", candidates=candidates[:_SHOWN]
        )
    return candidates[0]


def require_row(row: Any, noun: str, ref: str, hint: str, names: Iterable[str] = ()) -> Any:
    """The row itself; `names` are what it might have been called, looked at where there is none.

    Raises:
        NotFoundError: it is None.
    """
    if row is None:
        raise NotFoundError(f"{noun}: expected one called {show(ref)}, got none{suggest(ref, names)}", hint=hint)
    return row
