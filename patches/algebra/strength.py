"""The ± factor of a patch in a stack: what a stack, a lock file and an entry of the log hold, without any tensor.

It lies on a grid of its own, so that with the factors' grids (`rasura.patches.algebra.increment`) every product is
exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

from rasura.patches._io.json_fields import show
from rasura.patches.errors import StrengthError

SIXTEENTHS = 16
STRENGTH_LIMIT = 4
# So many digits, times sixteen, fit the 28 of a Decimal: nothing is rounded, nothing overflows.
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,16})?")


@dataclass(frozen=True, slots=True, order=True)
class Strength:
    """The ± factor of a patch in a stack, in sixteenths: exact, and the same on every machine."""

    sixteenths: int = SIXTEENTHS

    def __post_init__(self) -> None:
        if abs(self.sixteenths) > STRENGTH_LIMIT * SIXTEENTHS:
            raise StrengthError(
                f"strength {self} is out of range: expected -{STRENGTH_LIMIT} to {STRENGTH_LIMIT}",
                hint=f"--strength {STRENGTH_LIMIT}",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a decimal such as "0.75".

        Raises:
            StrengthError: not a number, off the grid of 1/16, or outside [-4, 4].
        """
        if not _DECIMAL.fullmatch(text):
            raise StrengthError(f"strength {show(text)} is no plain decimal number", hint="--strength 1", nearest="1")
        scaled = Decimal(text) * SIXTEENTHS
        if abs(scaled) > STRENGTH_LIMIT * SIXTEENTHS:
            raise StrengthError(
                f"strength {text} is out of range: expected -{STRENGTH_LIMIT} to {STRENGTH_LIMIT}",
                hint="--strength 1",
                nearest="1",
            )
        if scaled != scaled.to_integral_value():
            nearest = cls(int(scaled.to_integral_value()) or (1 if scaled > 0 else -1))  # 0 would add nothing
            raise StrengthError(
                f"strength {text} is off the grid: expected a multiple of 1/16",
                hint=f"--strength {nearest}",
                nearest=str(nearest),
            )
        return cls(int(scaled))

    @classmethod
    def of(cls, given: Self | str | float) -> Self:
        """A strength as people write it in Python: itself, a decimal in a text, or a number.

        Raises:
            StrengthError: see `parse`.
        """
        if isinstance(given, cls):
            return given
        return cls.parse(given if isinstance(given, str) else repr(float(given)))  # type: ignore[arg-type]

    @property
    def value(self) -> float:
        """The factor itself, exact in float64."""
        return self.sixteenths / SIXTEENTHS

    def __str__(self) -> str:
        """The shortest decimal; `parse(str(s)) == s`."""
        return f"{Decimal(self.sixteenths) / SIXTEENTHS:f}"


ONE = Strength()
