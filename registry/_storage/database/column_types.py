"""Types of columns that both databases keep alike, and what every table says of itself.

Each maps to a type that SQLite's STRICT tables know (INTEGER, TEXT, BLOB).
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, CheckConstraint, Dialect, Integer, Text, TypeDecorator

from rasura.patches._io.json_fields import show
from rasura.patches.errors import RegistryError
from rasura.registry._storage.records.validation import from_instant, instant

__all__ = ["Flag", "Instant", "Long", "check_hex", "strict"]


Long: Final = BigInteger().with_variant(Integer, "sqlite")
"""A whole number of 64 bits."""


class Instant(TypeDecorator[datetime]):
    """A time as RFC 3339 text in UTC with microseconds: sorts as times do, and is the same in the audit log."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else instant(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        try:
            return None if value is None else from_instant(value)
        except (ValueError, TypeError):
            raise RegistryError(
                f"a row of the database is damaged: expected a time, got {show(value)}", hint="rasura audit verify"
            ) from None


class Flag(TypeDecorator[bool]):
    """True and false as 1 and 0; STRICT tables know no BOOLEAN."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> bool | None:  # noqa: ARG002
        return None if value is None else bool(value)


def strict(*constraints: Any) -> tuple[Any, ...]:
    """The `__table_args__` of a STRICT table with these constraints."""
    return (*constraints, {"sqlite_strict": True})


def check_hex(column: str) -> CheckConstraint:
    """That a column holds a digest's 64 characters."""
    return CheckConstraint(f"length({column}) = 64", name=f"{column}_length")
