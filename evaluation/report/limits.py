"""Limits on the numbers of a report: what an evaluation must reach, and what it came to.

A limit speaks of a number as the report prints it, with four digits after the point, so that whoever reads the report
comes to the same verdict. A number that an evaluation does not have keeps no limit.

    forget, retain, held_out, harmonic, forget_paraphrase   the summary
    GROUP_ssim, GROUP_change, GROUP_frechet                 how far the pictures of a group moved
    attack_none, attack_embedding, attack_suffix, …         the most that came back under the patches, over all concepts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from rasura.evaluation.attacks.budget import KINDS
from rasura.patches._io.json_fields import JsonValue, is_decimal, show
from rasura.patches.errors import InputError

Bound: TypeAlias = Literal["min", "max"]
Value: TypeAlias = str | float | Decimal

_GROUPS: Final = ("forget", "retain", "held_out")
_SHARES: Final = ("forget", "retain", "held_out", "harmonic", "forget_paraphrase")
_MOVED: Final = ("ssim", "change", "frechet")
_ATTACKS: Final = tuple(f"attack_{kind}" for kind in ("none", *KINDS))
NUMBERS: Final = (*_SHARES, *(f"{group}_{name}" for group in _GROUPS for name in _MOVED), *_ATTACKS)
"""Every number that may have a limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The least or the most that a number may be.

    Attributes:
        number: one of `NUMBERS`.
        bound: `min` or `max`.
        value: itself allowed.
    """

    number: str
    bound: Bound
    value: Decimal


@dataclass(frozen=True, slots=True)
class Outcome:
    """A limit, and the number that was found; None where the report has none."""

    limit: Limit
    found: Decimal | None

    @property
    def kept(self) -> bool:
        """Whether the number is there and within its limit."""
        if self.found is None:
            return False
        return self.found >= self.limit.value if self.limit.bound == "min" else self.found <= self.limit.value

    def encode(self) -> dict[str, JsonValue]:
        """A flat object for reports and envelopes."""
        return {
            "number": self.limit.number,
            "bound": self.limit.bound,
            "limit": format(self.limit.value, "f"),
            "found": None if self.found is None else format(self.found, "f"),
            "kept": self.kept,
        }


def parse_limits(minimum: Mapping[str, Value], maximum: Mapping[str, Value]) -> tuple[Limit, ...]:
    """The limits of two tables by name, in the order of `NUMBERS`.

    Raises:
        InputError: an unknown number, a value that is no decimal or that the number cannot have, or a least value above
            the most.
    """
    least, most = _parse(minimum, "min"), _parse(maximum, "max")
    for name in least.keys() & most.keys():
        if least[name].value > most[name].value:
            raise InputError(
                f"{name}: expected a least value up to the most, got {least[name].value} and {most[name].value}"
            )
    return tuple(limits[name] for name in NUMBERS for limits in (least, most) if name in limits)


def compare_limits(
    limits: Iterable[Limit], summary: Mapping[str, str], body: Mapping[str, JsonValue]
) -> tuple[Outcome, ...]:
    """Each limit with its number, in their order."""
    found = list_numbers(summary, body)
    return tuple(Outcome(limit, found.get(limit.number)) for limit in limits)


def list_numbers(summary: Mapping[str, str], body: Mapping[str, JsonValue]) -> dict[str, Decimal]:
    """The numbers of a report that may have limits; those that it lacks are missing here."""
    found = {name: Decimal(summary[name]) for name in _SHARES if name in summary}
    for row in _rows(body, "changes"):
        for name in _MOVED:
            value = row.get(name)
            if is_decimal(value):
                found[f"{row.get('group')}_{name}"] = Decimal(value)
    for row in _rows(body, "attacks"):
        rate, name = row.get("rate"), f"attack_{row.get('attack')}"
        if row.get("model") == "patched" and is_decimal(rate):
            found[name] = max(found.get(name, Decimal(0)), Decimal(rate))
    return found


def _rows(body: Mapping[str, JsonValue], name: str) -> Iterator[Mapping[str, JsonValue]]:
    rows = body.get(name)
    return (row for row in (rows if isinstance(rows, list) else []) if isinstance(row, Mapping))


def _parse(given: Mapping[str, Value], bound: Bound) -> dict[str, Limit]:
    return {name: Limit(name, bound, _parse_value(name, value)) for name, value in given.items()}


def _parse_value(name: str, value: Value) -> Decimal:
    if name not in NUMBERS:
        raise InputError(f"limit: expected one of {', '.join(NUMBERS)}, got {show(name)}")
    text = str(value)
    low, high = _range(name)
    if not is_decimal(text) or not low <= (found := Decimal(text)) <= high:
        raise InputError(f"limit of {name}: expected a number from {low} to {high}, got {show(text)}")
    return found


def _range(name: str) -> tuple[int, int]:
    """What a number can be: shares from 0 to 1, likeness from -1, distances up to any size."""
    if name.endswith("_frechet"):
        return 0, 10**12
    return (-1 if name.endswith("_ssim") else 0), 1
