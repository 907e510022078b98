"""The choices of an eraser as texts: for a command line, for a manifest, for a list that people read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from rasura.patches.erasers.interface import Eraser

DATA: Final = "data"
"""Metadata of a field that holds what is to be worked on, and is no choice."""
_HELP: Final = "help"
_CHOICES: Final = "choices"
_LOW: Final = "low"
_HIGH: Final = "high"
_NEEDS: Final = "needs"
_BEFORE: Final = "before"
T = TypeVar("T", int, float, bool, str)
E = TypeVar("E")


def option(
    default: T,
    text: str,
    *,
    choices: Sequence[str] = (),
    low: float = -math.inf,
    high: float = math.inf,
    needs: str = "",
    before: T | None = None,
) -> T:
    """A field of an eraser.

    Args:
        default: what it is where nobody chooses.
        text: what it means.
        choices: the only values, where they are few.
        low: the least that it may be.
        high: the most.
        needs: without what it does nothing: `NAME=VALUE` or `NAME!=VALUE`, several with ` or ` between them.
        before: what methods did while this was no choice; manifests of that time do not name it.
    """
    metadata = {_HELP: text, _CHOICES: tuple(choices), _LOW: low, _HIGH: high, _NEEDS: needs, _BEFORE: before}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One choice of an eraser, for people.

    Attributes:
        name: as typed in `--set NAME=VALUE`.
        kind: int, float, bool or str.
        default: as text.
        text: what it means.
        choices: the only values, where they are few.
    """

    name: str
    kind: str
    default: str
    text: str
    choices: tuple[str, ...]


def options_of(eraser: type[Any]) -> tuple[Option, ...]:
    """Every choice of an eraser class, in its order."""
    return tuple(
        Option(f.name, _kind(f.default), _text(f.default), f.metadata.get(_HELP, ""), f.metadata.get(_CHOICES, ()))
        for f in dataclasses.fields(eraser)
    )


def encode_options(eraser: Eraser) -> dict[str, str]:
    """The eraser's choices as a manifest holds them; a seed stands in a field of its own, and data in none."""
    fields = dataclasses.fields(cast("Any", eraser))
    names = [f.name for f in fields if f.name != "seed" and not f.metadata.get(DATA)]
    return {name: _text(getattr(eraser, name)) for name in names}


def with_options(eraser: type[E], settings: Mapping[str, str]) -> E:
    """An eraser with these choices, the others at their defaults.

    Raises:
        InputError: an unknown name, or a value that it cannot be.
    """
    known = {f.name: f for f in dataclasses.fields(cast("Any", eraser))}
    for name in settings:
        if name not in known:
            raise InputError(
                f"method {_name(eraser)} has no option {show(name)}: expected one of {', '.join(sorted(known))}",
                hint=f"rasura methods {_name(eraser)}",
            )
    return eraser(**{name: _parsed(eraser, known[name], text) for name, text in settings.items()})


def check_idle(eraser: object, chosen: Iterable[str]) -> None:
    """Refuse choices that do nothing beside the others: whoever makes one expects something of it.

    Args:
        eraser: with all its choices.
        chosen: the names of those that somebody made.

    Raises:
        InputError: naming the first, and without what it does nothing.
    """
    for f in dataclasses.fields(cast("Any", eraser)):
        needs = str(f.metadata.get(_NEEDS, ""))
        # the default is what would have happened anyway
        if not needs or f.name not in set(chosen) or getattr(eraser, f.name) == f.default:
            continue
        if not any(_holds(eraser, part) for part in needs.split(" or ")):
            raise InputError(
                f"method {_name(type(eraser))}: option {f.name} does nothing here: expected it with {needs}, got "
                f"{', '.join(_state(eraser, part) for part in needs.split(' or '))}",
                hint=f"rasura methods {_name(type(eraser))}",
            )


def _holds(eraser: object, condition: str) -> bool:
    name, _, value = condition.partition("=")
    same = _text(getattr(eraser, name.removesuffix("!"))) == value
    return same != name.endswith("!")


def _state(eraser: object, condition: str) -> str:
    name = condition.partition("=")[0].removesuffix("!")
    return f"{name}={_text(getattr(eraser, name))}"


def older_options(eraser: type[Any]) -> dict[str, str]:
    """What methods did before a choice existed, for those choices that came later: as texts, by name."""
    found = {f.name: f.metadata.get(_BEFORE) for f in dataclasses.fields(eraser)}
    return {name: _text(value) for name, value in found.items() if value is not None}


def check_options(eraser: object) -> None:
    """Refuse choices out of range; called by each eraser's `__post_init__`.

    Raises:
        InputError: naming the option, what it was, and what is expected.
    """
    for f in dataclasses.fields(cast("Any", eraser)):
        value = getattr(eraser, f.name)
        if (choices := f.metadata.get(_CHOICES)) and value not in choices:
            raise _wrong(type(eraser), f.name, str(value), " or ".join(choices))
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = f.metadata.get(_LOW, -math.inf), f.metadata.get(_HIGH, math.inf)
        if not low <= value <= high or not math.isfinite(value):
            raise _wrong(type(eraser), f.name, _text(value), f"{_bound(low)} to {_bound(high)}")


def _parsed(eraser: type[Any], field: dataclasses.Field[Any], text: str) -> object:
    match field.default:
        case bool():
            if text not in {"yes", "no"}:
                raise _wrong(eraser, field.name, text, "yes or no")
            return text == "yes"
        case int() | float():
            kind = type(field.default)
            try:
                return kind(text)
            except ValueError:
                raise _wrong(eraser, field.name, text, f"a number ({kind.__name__})") from None
        case _:
            return text


def _wrong(eraser: type[Any], name: str, got: str, expected: str) -> InputError:
    return InputError(
        f"method {_name(eraser)}: option {name}: expected {expected}, got {show(got)}",
        hint=f"rasura methods {_name(eraser)}",
    )


def _name(eraser: type[Any]) -> str:
    return str(getattr(eraser, "name", eraser.__name__))


def _kind(value: object) -> str:
    return type(value).__name__


def _text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            shown = format(value, "g")
            return shown if float(shown) == value else repr(value)
        case _:
            return str(value)


def _bound(value: float) -> str:
    return "any" if math.isinf(value) else format(value, "g")
