"""How long what was said in a case is kept: classes of a policy, each a span or a hold.

    [retention]
    takedown = "30 days to 180 days"    # after the case is closed: not deleted before, to be deleted by then
    minor = "to 30 days"
    court = "hold"                      # never deleted while the policy says so

A case is of the class that it was opened with, else of `default`, where the policy has such a class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError

__all__ = ["DEFAULT", "Retention", "read_retentions", "stricter"]

DEFAULT: Final = "default"

_HOLD: Final = "hold"
_SPAN: Final = r"([1-9][0-9]{0,4}) (day|week)s?"
_FORM: Final = re.compile(rf"(?:{_SPAN} )?to {_SPAN}|from {_SPAN}", re.ASCII)
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DAYS: Final = {"day": 1, "week": 7}
_MOST: Final = 64
_HINT: Final = "rasura policy show"


@dataclass(frozen=True, slots=True)
class Retention:
    """A class.

    Attributes:
        name: of the class.
        least: not deleted before so long after the case was closed; None: at once, if somebody likes.
        most: to be deleted by so long after it; None: nothing asks for it.
        held: whether nothing is deleted at all.
    """

    name: str
    least: timedelta | None = None
    most: timedelta | None = None
    held: bool = False

    @classmethod
    def parse(cls, name: str, said: object) -> Self:
        """The class of its name and text.

        Raises:
            InputError: another form, or a span that ends before it begins.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"policy: retention: expected a short name in small letters, got {show(name)}", hint=_HINT)
        if said == _HOLD:
            return cls(name, held=True)
        found = _FORM.fullmatch(said) if isinstance(said, str) else None
        if found is None:
            raise InputError(
                f'policy: retention: {name}: expected "30 days to 180 days", "to 4 weeks", "from 30 days" or "hold", '
                f"got {show(said)}",
                hint=_HINT,
            )
        least, most = _read(found[1] or found[5], found[2] or found[6]), _read(found[3], found[4])
        if least is not None and most is not None and most < least:
            raise InputError(f"policy: retention: {name}: expected a span that ends after it begins", hint=_HINT)
        return cls(name, least, most)

    def __str__(self) -> str:
        if self.held:
            return _HOLD
        if self.most is None:
            return f"from {_show(self.least or timedelta(0))}"
        return f"to {_show(self.most)}" if self.least is None else f"{_show(self.least)} to {_show(self.most)}"


def read_retentions(table: Mapping[str, object]) -> tuple[Retention, ...]:
    """The classes of a table, by name.

    Raises:
        InputError: one that is none, or too many.
    """
    if len(table) > _MOST:
        raise InputError(f"policy: retention: expected at most {_MOST} classes, got {len(table)}", hint=_HINT)
    return tuple(Retention.parse(name, said) for name, said in sorted(table.items()))


def stricter(one: Retention, other: Retention) -> Retention:
    """What holds where both do: kept as long as the longer asks, and deleted as soon as either asks after that."""
    if one.held or other.held:
        return Retention(one.name, held=True)
    leasts = [each for each in (one.least, other.least) if each is not None]
    mosts = [each for each in (one.most, other.most) if each is not None]
    least, most = max(leasts, default=None), min(mosts, default=None)
    if least is not None and most is not None:
        most = max(least, most)
    return Retention(one.name, least, most)


def _read(count: str | None, unit: str | None) -> timedelta | None:
    return None if count is None or unit is None else timedelta(days=int(count) * _DAYS[unit])


def _show(span: timedelta) -> str:
    return f"{span.days} day" + ("" if span.days == 1 else "s")
