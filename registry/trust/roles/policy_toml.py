"""The fields of a trust policy that somebody wrote down as TOML, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError

MOST: Final = 64
"""Keys, and approvals that can be asked for."""
MOST_RULES: Final = 1000
"""Rules, and bases of a key."""
WHAT: Final = "trust policy"
"""What messages call it."""
HINT: Final = "rasura trust sign FILE --key NAME"


def refuse_others(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    """Refuse fields that nobody asked for.

    Raises:
        InputError: naming the field, what was expected and what stands there.
    """
    if odd := sorted(set(table) - allowed):
        raise InputError(f"{WHAT}: {where}: expected {', '.join(sorted(allowed))}, got {show(odd[0])}", hint=HINT)


def read_table(value: object, where: str) -> dict[str, Any]:
    """A value that is a table.

    Raises:
        InputError: naming the field, what was expected and what stands there.
    """
    if not isinstance(value, dict):
        raise InputError(f"{WHAT}: {where}: expected a table, got {show(value)}", hint=HINT)
    return value


def read_tables(table: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field that holds tables: a `dict` of them, or a `list`; empty where it is not there.

    Raises:
        InputError: naming the field, what was expected and what stands there.
    """
    value: Any = table.get(name, kind())
    if type(value) is not kind or len(table.get(name, ())) > MOST_RULES:
        raise InputError(f"{WHAT}: {name}: expected tables, got {show(value)}", hint=HINT)
    return value


def read_texts(table: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """A field that is a list of texts; empty where it is not there.

    Raises:
        InputError: naming the field, what was expected and what stands there.
    """
    value = table.get(name, [])
    if not isinstance(value, list) or any(not isinstance(each, str) for each in value):
        raise InputError(f"{WHAT}: {where}.{name}: expected a list of texts, got {show(value)}", hint=HINT)
    return tuple(value)


def read_number(table: Mapping[str, Any], name: str, where: str) -> int:
    """A field that is a number from 1 to `MOST`.

    Raises:
        InputError: naming the field, what was expected and what stands there.
    """
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise InputError(f"{WHAT}: {where}: {name}: expected 1 to {MOST}, got {show(value)}", hint=HINT)
    return value


def read_expiry(value: object) -> datetime:
    """A time; a date is its first instant, and without a zone it is UTC.

    Raises:
        InputError: naming the field, what was expected and what stands there.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise InputError(f"{WHAT}: expires: expected a date such as 2027-03-01, got {show(value)}", hint=HINT)
