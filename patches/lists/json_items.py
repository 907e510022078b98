"""JSON documents item by item, each with the line on which it begins.

The standard decoder says where an error is, not where a value was; a list of a hundred thousand prompts with one number
in it wants its line. So the outermost array or object is walked here, and every value in it is the decoder's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

__all__ = ["JsonFlawError", "ends_early", "parse_json", "walk_array", "walk_object"]

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")  # of a character that JSON writes as two
_SHOWN: Final = 60  # characters of a name in a message


class JsonFlawError(ValueError):
    """Where a document is no JSON, and why.

    Attributes:
        line: counted from 1.
        said: what was expected.
    """

    def __init__(self, line: int, said: str) -> None:
        super().__init__(said)
        self.line = line
        self.said = said


def parse_json(text: str) -> object:
    """One value, and nothing behind it; no name twice, no NaN.

    Raises:
        JsonFlawError: otherwise.
    """
    cursor = _Cursor(text)
    value = cursor.value()
    cursor.end()
    return value


def ends_early(text: str) -> bool:
    """Whether another value follows the first, on a line of its own: JSON lines, whatever the file is called."""
    cursor = _Cursor(text)
    try:
        cursor.value()
    except JsonFlawError:
        return False
    behind = _BLANK.match(text, cursor.at)
    return behind is not None and "\n" in behind[0] and behind.end() < len(text)


def walk_array(text: str) -> Iterator[tuple[int, object]]:
    """Line and value of every item of the one array that a text is.

    Raises:
        JsonFlawError: it is none, or something stands behind it.
    """
    cursor = _Cursor(text)
    yield from cursor.array()
    cursor.end()


def walk_object(text: str) -> Iterator[tuple[str, int, object, bool]]:
    """Everything in the one object that a text is: name, line, value, and whether it is an item of the name's array.

    Raises:
        JsonFlawError: it is none, a name stands in it twice, or something stands behind it.
    """
    cursor = _Cursor(text)
    cursor.expect("{")
    seen: set[str] = set()
    while not (cursor.peek() == "}" and not seen):
        line = cursor.line
        name = cursor.value()
        if not isinstance(name, str):
            raise JsonFlawError(line, "expected a name in quotes")
        if name in seen:
            raise JsonFlawError(line, _twice(name))
        seen.add(name)
        cursor.expect(":")
        if cursor.peek() == "[":
            for line, item in cursor.array():
                yield name, line, item, True
        else:
            line = cursor.line
            yield name, line, cursor.value(), False
        if cursor.peek() == "}":
            break
        cursor.expect(",")
    cursor.expect("}")
    cursor.end()


class _Cursor:
    """A place in a text, and its line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self._halves = _HALF.search(text) is not None

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        blank = _BLANK.match(self.text, self.at)
        self._move(self.at if blank is None else blank.end())
        return self.text[self.at : self.at + 1]

    def expect(self, sign: str) -> None:
        """Go past this sign."""
        if self.peek() != sign:
            raise JsonFlawError(self.line, f"expected {sign!r}, got {self.text[self.at : self.at + 1]!a}")
        self._move(self.at + 1)

    def end(self) -> None:
        """Refuse anything that is left."""
        if self.peek():
            raise JsonFlawError(self.line, f"expected nothing behind the list, got {self._rest()}")

    def value(self) -> object:
        """The value that begins here."""
        self.peek()
        try:
            value, end = _DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            raise JsonFlawError(error.lineno, f"expected JSON, got {self._rest()}: {error.msg}") from None
        except RecursionError:
            raise JsonFlawError(self.line, f"expected JSON of few levels, got {self._rest()}") from None
        except ValueError as error:  # ours, or an integer of thousands of digits
            raise JsonFlawError(self.line, str(error)) from None
        if self._halves and _lone(value):
            raise JsonFlawError(self.line, f"expected whole characters, got half of one in {self._rest()}")
        self._move(end)
        return value

    def array(self) -> Iterator[tuple[int, object]]:
        """The items of the array that begins here."""
        self.expect("[")
        if self.peek() == "]":
            self.expect("]")
            return
        while True:
            self.peek()
            line = self.line
            yield line, self.value()
            if self.peek() == "]":
                self.expect("]")
                return
            self.expect(",")

    def _move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _rest(self) -> str:
        return ascii(self.text[self.at : self.at + _SHOWN].partition("\n")[0])


def _lone(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _twice(name: str) -> str:
    return f"expected each name once, got {name[:_SHOWN]!a} twice"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(_twice(name))
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected JSON, got {name}")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)
