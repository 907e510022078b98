"""Reading one JSON object field by field, with nothing left over.

A parser asks for each field by name, kind and limits, and ends with `done`, which refuses what nobody asked for. So a
document of a newer program is never half understood, and every message names the document and the field.
"""

import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NoReturn, TypeAlias, TypeGuard, TypeVar, cast

from rasura.patches.errors import FormatError
from rasura.patches.types import Digest

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What JSON can say. Floats only where a foreign document is read with `floats=True`."""

MAX_TEXT: Final = 4096
"""Characters of a text field unless its reader says otherwise."""

MAX_ITEMS: Final = 100_000
"""Elements of a list field unless its reader says otherwise."""

_T = TypeVar("_T")

_SHOWN: Final = 60  # characters of a bad value in a message
_SHOWN_BITS: Final = 256
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,24})(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?")


class Fields:
    """One JSON object, read field by field; whatever nobody asked for is refused by `done`.

    Every reader takes a field's name and returns a value of the promised type, or raises FormatError with `what` and
    the field's name.
    """

    def __init__(self, values: Mapping[str, JsonValue], what: str) -> None:
        self._values = values
        self._what = what
        self._read: set[str] = set()

    @classmethod
    def of(cls, value: JsonValue, what: str) -> "Fields":
        """The fields of `value`.

        Raises:
            FormatError: it is no object.
        """
        if not isinstance(value, Mapping):
            raise FormatError(f"{what}: expected an object, got {show(value)}", what=what)
        return cls(value, what)

    def names(self) -> tuple[str, ...]:
        """All names in the document's order, for objects whose keys are data."""
        return tuple(self._values)

    def has(self, name: str) -> bool:
        """Whether the field is present; asking does not count as reading."""
        return name in self._values

    def is_null(self, name: str) -> bool:
        """Whether the field, which must be present, is null. Counts as reading when it is."""
        if name in self._values and self._values[name] is None:
            self._read.add(name)
            return True
        return False

    def value(self, name: str) -> JsonValue:
        """The field as it is, for a reader that knows better."""
        if name not in self._values:
            raise FormatError(f"{self._what}: expected the field {show(name)}, got none", what=self._what, field=name)
        self._read.add(name)
        return self._values[name]

    def text(self, name: str, pattern: str | re.Pattern[str] | None = None, limit: int = MAX_TEXT) -> str:
        """A text of at most `limit` characters that matches `pattern` from end to end."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > limit:
            self._refuse(name, f"a text of at most {limit} characters", value)
        if pattern is not None and not re.fullmatch(pattern, value):
            self._refuse(name, f"a text like {getattr(pattern, 'pattern', pattern)}", value)
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included. `true` is none."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._refuse(name, f"an integer from {low} to {high}", value)
        return value

    def integers(self, name: str, limit: int, low: int, high: int) -> tuple[int, ...]:
        """A list of at most `limit` integers, such as a shape."""
        values = self.items(name, limit)
        if any(not isinstance(v, int) or isinstance(v, bool) or not low <= v <= high for v in values):
            self._refuse(name, f"integers from {low} to {high}", values)
        return cast("tuple[int, ...]", tuple(values))

    def flag(self, name: str) -> bool:
        """`true` or `false`."""
        value = self.value(name)
        if not isinstance(value, bool):
            self._refuse(name, "true or false", value)
        return value

    def digest(self, name: str) -> Digest:
        """A SHA-256 in 64 lower-case hexadecimal digits."""
        value = self.value(name)
        if not isinstance(value, str) or not _DIGEST.fullmatch(value):
            self._refuse(name, "64 lower-case hexadecimal digits", value)
        return Digest(value)

    def decimal(self, name: str) -> str:
        """A finite decimal number as text, such as "1.234e-05"; the text itself, because the text is what is hashed."""
        value = self.value(name)
        if not is_decimal(value):
            self._refuse(name, 'a decimal number as text, such as "1.5" or "2e-05"', value)
        return value

    def choice(self, name: str, allowed: Collection[str]) -> str:
        """One of the allowed texts."""
        value = self.value(name)
        if not isinstance(value, str) or value not in allowed:
            self._refuse(name, f"one of {', '.join(sorted(allowed))}", value)
        return value

    def fields(self, name: str) -> "Fields":
        """An object inside this one; it needs its own `done`."""
        return Fields.of(self.value(name), f"{self._what}: {name}")

    def items(self, name: str, limit: int = MAX_ITEMS) -> list[JsonValue]:
        """A list of at most `limit` values of any kind."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > limit:
            self._refuse(name, f"a list of at most {limit}", value)
        return value

    def texts(self, name: str, limit: int = MAX_ITEMS, characters: int = MAX_TEXT) -> tuple[str, ...]:
        """A list of at most `limit` texts of at most `characters` each."""
        values = self.items(name, limit)
        if any(not isinstance(v, str) or len(v) > characters for v in values):
            self._refuse(name, f"texts of at most {characters} characters", values)
        return cast("tuple[str, ...]", tuple(values))

    def records(self, name: str, limit: int = MAX_ITEMS) -> Iterator["Fields"]:
        """A list of at most `limit` objects, one after the other; each needs its own `done`."""
        for index, item in enumerate(self.items(name, limit)):
            yield Fields.of(item, f"{self._what}: {name}[{index}]")

    def optional(self, name: str, read: Callable[[str], _T]) -> _T | None:
        """`read(name)` where the field is present, else None: `fields.optional("ticket", fields.text)`."""
        return read(name) if self.has(name) else None

    def done(self) -> None:
        """Refuses fields that nobody has read.

        Raises:
            FormatError: naming the first unknown field.
        """
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            raise FormatError(
                f"{self._what}: expected no other fields, got {show(unknown[0])}", what=self._what, field=unknown[0]
            )

    def _refuse(self, name: str, expected: str, got: object) -> NoReturn:
        field = name if _PLAIN.fullmatch(name) else show(name)  # where keys are data, they may hold anything
        raise FormatError(f"{self._what}: {field}: expected {expected}, got {show(got)}", what=self._what, field=name)


def is_decimal(value: object) -> TypeGuard[str]:
    """Whether a value is a finite decimal number as text: what `Fields.decimal` accepts."""
    return isinstance(value, str) and bool(_DECIMAL.fullmatch(value)) and math.isfinite(float(value))


def show(value: object) -> str:
    """A bad value for a message: escaped, and short at a cost that does not grow with the value."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:  # Python refuses to write thousands of digits
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value[:_SHOWN]) if isinstance(value, str) else reprlib.repr(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
