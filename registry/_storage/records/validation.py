"""What a value must look like before it may enter the registry; every record checks itself with these.

A value that passes can be stored by SQLite and PostgreSQL alike and written into the audit log: no NUL, no lone
surrogate, bounded length, times in UTC.
"""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from rasura.patches._io.canonical_json import MAX_INTEGER
from rasura.patches._io.json_fields import is_decimal, show
from rasura.patches.errors import InputError
from rasura.patches.types import PatchId

__all__ = [
    "check_count",
    "check_decimal",
    "check_digest",
    "check_name",
    "check_stack",
    "check_text",
    "check_time",
    "check_uuid",
    "from_instant",
    "instant",
]

MAX_NAME: Final = 255
MAX_TEXT: Final = 4096
MAX_SIXTEENTHS: Final = 64
"""Largest strength in sixteenths: 4."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_INSTANT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_INSTANT_FORM: Final = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", re.ASCII
)


def check_digest(what: str, value: object) -> None:
    """Refuses all but 64 lower-case hexadecimal digits.

    Raises:
        InputError: naming `what`.
    """
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise InputError(f"{what}: expected 64 lower-case hexadecimal digits, got {show(value)}")


def check_text(what: str, value: object, *, limit: int = MAX_TEXT, empty: bool = False) -> None:
    """Refuses texts that are too long, empty (unless allowed), or that a database or a log cannot carry.

    Raises:
        InputError: naming `what`.
    """
    if not isinstance(value, str) or not (empty or value) or len(value) > limit:
        raise InputError(f"{what}: expected {'0' if empty else '1'} to {limit} characters, got {show(value)}")
    if _UNSTORABLE.search(value):
        raise InputError(f"{what}: expected Unicode text without NUL, got {show(value)}")


def check_name(what: str, value: str) -> None:
    """Refuses names that are too long, empty, or that would break a line of output.

    Raises:
        InputError: naming `what`.
    """
    check_text(what, value, limit=MAX_NAME)
    if not value.isprintable() or value != value.strip():
        raise InputError(f"{what}: expected printable characters without spaces at the ends, got {show(value)}")


def check_count(what: str, value: object, *, low: int = 0, high: int = MAX_INTEGER) -> None:
    """Refuses integers out of range, and booleans.

    Raises:
        InputError: naming `what`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{what}: expected an integer from {low} to {high}, got {show(value)}")


def check_stack(what: str, stack: Mapping[PatchId, int]) -> None:
    """Refuses what are no patches, and strengths that are 0 or out of range.

    Raises:
        InputError: naming `what`.
    """
    for patch_id, strength in stack.items():
        check_digest("patch id", patch_id)
        check_count("strength in sixteenths", strength, low=-MAX_SIXTEENTHS, high=MAX_SIXTEENTHS)
        if strength == 0:
            raise InputError(f"{what}: expected no patch of strength 0 in its stack, got {patch_id[:12]}")


def check_decimal(what: str, value: object) -> None:
    """Refuses all but finite decimal numbers as text.

    Raises:
        InputError: naming `what`.
    """
    if not is_decimal(value):
        raise InputError(f'{what}: expected a decimal number as text, such as "0.979", got {show(value)}')


def check_time(what: str, value: datetime) -> None:
    """Refuses times without a time zone: they would mean something else on the next machine.

    Raises:
        InputError: naming `what`.
    """
    if value.tzinfo is None:
        raise InputError(f"{what}: expected a time with a time zone, got {value.isoformat()}")


def check_uuid(what: str, value: str) -> None:
    """Refuses all but a UUID in its usual lower-case spelling.

    Raises:
        InputError: naming `what`.
    """
    try:
        sound = str(uuid.UUID(value)) == value
    except (ValueError, AttributeError, TypeError):
        sound = False
    if not sound:
        raise InputError(f"{what}: expected a UUID such as {uuid.UUID(int=0)}, got {show(value)}")


def instant(time: datetime) -> str:
    """A time as text: RFC 3339, UTC, microseconds, fixed width, so that texts sort as times do."""
    return time.astimezone(UTC).strftime(_INSTANT)


def from_instant(text: str) -> datetime:
    """The time of an `instant` text.

    Raises:
        InputError: another form.
    """
    try:
        time = datetime.fromisoformat(text) if _INSTANT_FORM.fullmatch(text) else None
    except ValueError:  # the thirtieth of February
        time = None
    if time is None:
        raise InputError(f"time: expected a form like 2026-01-31T00:00:00.000000Z, got {show(text)}")
    return time
