"""Canonical JSON (RFC 8785) for everything whose bytes are hashed, and the strict reading of any JSON.

Two readers that disagree about one file are how forged documents pass, so a document has exactly one reading here: no
duplicate keys, no floats, no integers that a double would round, no lone surrogates, bounded size and depth. `loads`
also demands that the bytes are the canonical ones, so that equal values have equal digests. Decimal numbers travel as
strings (`decimal_text`, `Fields.decimal`).

Not here: what a particular document must contain. `Fields` reads one object field by field.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, cast

import rfc8785

from rasura.patches._io.json_fields import Fields, JsonValue, show
from rasura.patches.errors import FormatError

__all__ = ["MAX_DEPTH", "MAX_INTEGER", "Fields", "JsonValue", "dumps", "format_decimal", "loads", "parse"]

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 7493 §2.2, I-JSON)."""

MAX_DEPTH: Final = 64
"""Levels of nesting. Ours need six; a fixed number makes the answer independent of the caller's stack."""

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":"), default=dict
)
"""Writes what RFC 8785 demands where no float is inside and all keys are ASCII, whose order is the same by code points
and by UTF-16 code units; ten times as fast as `rfc8785`, which a law holds it to. `default` sees mappings that are no
dict."""

_INTEGER_CHARACTERS: Final = 17  # "-9007199254740991"; longer ones cost quadratic time to convert


def dumps(value: JsonValue) -> bytes:
    """The RFC 8785 bytes of a value: UTF-8, no spaces, keys sorted by UTF-16 code units.

    Raises:
        FormatError: a float, an integer beyond ±(2^53 - 1), a lone surrogate, more than 64 levels, or no JSON at all.
    """
    if _check(value, "value", floats=False):
        return _ENCODER.encode(value).encode()
    return rfc8785.dumps(_plain(value))  # type: ignore[arg-type]  # _check has seen every node


def loads(data: bytes, *, what: str, limit: int) -> JsonValue:
    """The value of canonical bytes; the only inverse of `dumps`: `dumps(loads(data)) == data`.

    Args:
        data: the whole document.
        what: what it is, for messages ("manifest.json of patch ab12").
        limit: most bytes the document may have.

    Raises:
        FormatError: any breach; see the module's docstring.
    """
    plain = _read_plain(data) if len(data) <= limit else None
    if plain is not None:
        return plain
    value = parse(data, what=what, limit=limit)
    canonical = dumps(value)
    if canonical != data:
        at = _differ(canonical, data)
        raise FormatError(f"{what}: expected canonical JSON (RFC 8785), got another spelling from byte {at}", what=what)
    return value


def parse(data: bytes, *, what: str, limit: int, floats: bool = False) -> JsonValue:
    """The value of foreign JSON, as strict as `loads` but for its layout.

    Args:
        data: the whole document.
        what: what it is, for messages.
        limit: most bytes the document may have.
        floats: accept finite floats (`config.json` of a model has some).

    Raises:
        FormatError: too long, not UTF-8, not JSON, duplicate keys, numbers out of range, lone surrogates, too deep.
    """
    if len(data) > limit:
        raise FormatError(f"{what}: expected at most {limit} bytes, got {len(data)}", what=what)
    reader = _Reader(what, floats)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reader.pairs,
            parse_int=reader.integer,
            parse_float=reader.real,
            parse_constant=reader.constant,
        )
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{what}: expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}", what=what
        ) from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{what}: expected JSON, got {error.msg} at character {error.pos}", what=what) from None
    except RecursionError:
        raise FormatError(f"{what}: expected at most {MAX_DEPTH} levels of nesting, got many more", what=what) from None
    _check(value, what, floats=floats)
    return cast("JsonValue", value)


def format_decimal(value: float) -> str:
    """The shortest decimal text that reads back as the same float64, as `Fields.decimal` accepts it.

    Raises:
        FormatError: NaN or infinity.
    """
    if not math.isfinite(value):
        raise FormatError(f"expected a finite number, got {value}")
    return repr(float(value))


class _NotPlainError(ValueError):
    """A number that only the careful reader may judge."""


def _leave(_: str) -> NoReturn:
    raise _NotPlainError


def _plain_integer(text: str) -> int:
    if len(text) > _INTEGER_CHARACTERS or abs(value := int(text)) > MAX_INTEGER:
        raise _NotPlainError
    return value


_DECODER: Final = json.JSONDecoder(parse_int=_plain_integer, parse_float=_leave, parse_constant=_leave)


def _read_plain(data: bytes) -> JsonValue:
    """The value of canonical ASCII with few brackets, several times as fast; None of whatever is not surely that.

    Of ASCII, the standard library writes the bytes of RFC 8785: the same escapes, and keys in the order of their code
    units. So what it reads and writes to the same bytes is canonical. Of keys that are there twice it writes one, of
    other spellings another; fewer brackets than levels are allowed cannot be too deep; and what is left, floats, large
    integers and null among it, goes the careful way.
    """
    if not data.isascii() or data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        return None
    text = data.decode("ascii")
    try:
        value: JsonValue = _DECODER.decode(text)
    except ValueError:
        return None
    return value if _ENCODER.encode(value) == text else None


@dataclass(frozen=True, slots=True)
class _Reader:
    """The hooks of one reading; each refuses what plain `json` would let pass."""

    what: str
    floats: bool

    def pairs(self, pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        # Keys arrive unescaped, so "a" and "\u0061" are seen to be twins.
        found = dict(pairs)
        if len(found) != len(pairs):
            self._refuse("unique keys", f"{show(_first_twin(name for name, _ in pairs))} twice")
        return found

    def integer(self, text: str) -> int:
        if len(text) > _INTEGER_CHARACTERS or abs(int(text)) > MAX_INTEGER:
            self._refuse(f"integers within ±{MAX_INTEGER}", show(text))
        return int(text)

    def real(self, text: str) -> float:
        if not self.floats:
            self._refuse("no floats (decimals are strings)", show(text))
        value = float(text)
        if not math.isfinite(value):  # 1e999 reaches this hook, not `constant`
            self._refuse("finite numbers", show(text))
        return value

    def constant(self, text: str) -> NoReturn:
        self._refuse("finite numbers", text)

    def _refuse(self, expected: str, got: str) -> NoReturn:
        raise FormatError(f"{self.what}: expected {expected}, got {got}", what=self.what)


def _check(value: object, what: str, *, floats: bool) -> bool:
    """Visits every node without recursion and refuses what canonical JSON cannot carry.

    Returns:
        Whether all keys are ASCII.
    """
    level: Sequence[object] = [value]
    ascii_keys = True
    for _ in range(MAX_DEPTH):
        if not level:
            return ascii_keys
        inside: list[object] = []
        for node in level:
            if isinstance(node, str):
                if not node.isascii():
                    _check_text(node, what)
            elif type(node) is int and -MAX_INTEGER <= node <= MAX_INTEGER:
                pass  # before the slow question what a mapping is
            elif isinstance(node, Mapping):
                ascii_keys &= _check_keys(node, what)
                inside += node.values()
            elif isinstance(node, list | tuple):
                inside += node
            else:
                _check_number(node, what, floats=floats)
        level = inside
    if level:
        raise FormatError(f"{what}: expected at most {MAX_DEPTH} levels of nesting, got more", what=what)
    return ascii_keys


def _check_keys(node: Mapping[object, object], what: str) -> bool:
    """Texts; whether all of them are ASCII."""
    ascii_keys = True
    for name in node:
        if not isinstance(name, str):
            raise FormatError(f"{what}: expected texts as keys, got {show(name)}", what=what)
        if not name.isascii():
            _check_text(name, what)
            ascii_keys = False
    return ascii_keys


def _check_number(node: object, what: str, *, floats: bool) -> None:
    """A number that every reader keeps, or null, true or false."""
    match node:
        case None | bool():
            pass
        case int():
            if abs(node) > MAX_INTEGER:
                raise FormatError(f"{what}: expected integers within ±{MAX_INTEGER}, got a larger one", what=what)
        case float() if floats:
            pass
        case _:
            raise FormatError(
                f"{what}: expected JSON without floats, got {show(node)} ({type(node).__name__})", what=what
            )


def _check_text(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError(f"{what}: expected Unicode text, got a lone surrogate in {show(text)}", what=what) from None


def _plain(value: JsonValue) -> object:
    """Mappings as dicts: `rfc8785` looks for exactly that. Depth is bounded by `_check`."""
    if isinstance(value, Mapping):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return value


def _first_twin(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _differ(left: bytes, right: bytes) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
