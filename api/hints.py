"""Hints for whoever calls from Python: the command that a hint names, said as the call of `rasura.api` that does it.

    rasura patch apply c075 --model sd15 --strength 0.5  →  registry.apply(ids=['c075'], model='sd15', strength='0.5')
    --rank-rule relative:1e-4                            →  rank_rule='relative:1e-4'

Inside of the program a hint is a command, because most people type commands. At the edge it is translated; what no
call does (`rasura demo`) stays a command.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, ParamSpec, TypeAlias, TypeVar

from rasura.api.argument_types import check_arguments
from rasura.api.command_calls import CALLS, LIVE_CALLS, Call
from rasura.patches.errors import RasuraError

__all__ = ["in_python", "live_hint", "python_hint"]

P = ParamSpec("P")
R = TypeVar("R")
Kind: TypeAlias = Literal["one", "many", "flag", "pairs", "lists"]


_KINDS: Final[Mapping[str, Kind]] = {
    "--concept": "many", "--template": "many", "--protect": "many", "--drop": "many", "--revert": "many",
    "--all": "flag", "--force": "flag", "--deep": "flag", "--replace": "flag", "--leave": "flag", "--strict": "flag",
    "--private": "flag", "--dry-run": "flag", "--layers": "one", "--set": "pairs", "--min": "pairs", "--max": "pairs",
    "--truncate": "flag", "--also-called": "lists", "--tsa-ca": "many", "--witness-key": "many",
}  # fmt: skip
"""How an option is written; those that are not here take one value."""

_RENAMED: Final[Mapping[str, str]] = {
    "--concept": "targets",
    "--also-called": "names",
    "--template": "templates",
    "--set": "settings",
    "--endpoint": "endpoint",
}
_BARE_FLAGS: Final = frozenset({"--force", "--deep", "--replace", "--strict", "--private"})
_TEXT: Final = r"""(?:'[^']*'|"[^"]*"|[^'"(),]|,(?! or ))*"""
_COMMAND: Final = re.compile(rf"(?<![\w./-])rasura (?=[a-z])({_TEXT})")
_OPTION: Final = re.compile(r"(?:(?<=^)|(?<=: )|(?<=, or )|(?<=\()|(?<= or ))(--[a-z][a-z-]*)( '[^']*'| [^\s,()]+)?")


def python_hint(hint: str) -> str:
    """The hint, with calls in place of commands and arguments in place of options."""
    return _translated(hint, CALLS)


def live_hint(hint: str) -> str:
    """The hint for whoever holds a live model, `model`, as `rasura.attach` gave it."""
    return _translated(hint, LIVE_CALLS)


def _translated(hint: str, calls: Mapping[str, Call]) -> str:
    with_calls = _COMMAND.sub(lambda found: _call_of(found[1], calls) or found[0], hint)
    return _OPTION.sub(_argument, with_calls)


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Whoever called from Python reads of the next call, not of the next command; and of a wrong type before its use.

    Raises:
        InputError: an argument of another plain type than its annotation says.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            check_arguments(function, args, kwargs)
            return function(*args, **kwargs)
        except RasuraError as error:
            for each in (error, *error.others):
                each.hint = python_hint(each.hint)
            raise

    return call


def _call_of(text: str, calls: Mapping[str, Call]) -> str | None:
    """The call that does what these words do, and what follows them in the sentence; None where there is none."""
    words = text.split()
    name = next((n for size in (3, 2, 1) if (n := " ".join(words[:size])) in calls), None)
    if name is None:
        return None
    call, given = calls[name], text
    for word in name.split():
        given = given.lstrip().removeprefix(word)
    arguments, rest = _arguments(call, _split(given))
    gap = given[len(given.rstrip()) :]
    if not rest and not arguments and gap:
        rest = gap
    elif rest:
        rest = " " + rest
    return f"{_receiver(call, arguments)}{_written(call, arguments)}{call.end}{rest}"


def _split(text: str) -> list[str]:
    """The words as a shell reads them; of a text that it would not read, none."""
    try:
        return [word for word in shlex.split(text) if word != "…"]
    except ValueError:
        return []


def _arguments(call: Call, words: Sequence[str]) -> tuple[dict[str, object], str]:
    """The arguments by name, and the words that belong to no argument."""
    found: dict[str, object] = {}
    positional: list[str] = []
    many = any(place.startswith("*") for place in call.places)
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-") or word == "-":
            if not many and len(positional) >= len(call.places):
                break
            positional.append(word)
            at += 1
            continue
        at = _take(call, words, at, found)
    return {**_placed(call.places, positional), **found}, shlex.join(words[at:])


def _take(call: Call, words: Sequence[str], at: int, found: dict[str, object]) -> int:
    """Put one option among the arguments; the place of the next word."""
    option, equals, value = words[at].partition("=")
    name = call.renamed.get(option, option.lstrip("-").replace("-", "_"))
    kind = _KINDS.get(option, "one")
    if kind == "flag":
        if name:
            found[name] = True
        return at + 1
    if not equals:
        at += 1
        value = words[at] if at < len(words) else "…"
    if not name:
        return at + 1
    before = found.get(name)
    if kind == "pairs":
        key, _, setting = value.partition("=")
        found[name] = {**(before if isinstance(before, dict) else {}), key: setting}
    elif kind == "lists" and "=" in value:
        key, _, item = value.partition("=")
        known = before if isinstance(before, dict) else {}
        found[name] = {**known, key: [*known.get(key, []), item]}
    elif kind in {"many", "lists"}:
        found[name] = [*(before if isinstance(before, list) else []), value]
    else:
        found[name] = value
    return at + 1


def _placed(places: Sequence[str], words: Sequence[str]) -> dict[str, object]:
    """Positional words by the names of their places; a place with a star takes what the others leave."""
    found: dict[str, object] = {}
    left = list(words)
    for index, place in enumerate(places):
        after = len(places) - index - 1
        if place.startswith("*"):
            taken, left = left[: len(left) - after] if after else left, left[len(left) - after :] if after else []
            if taken:
                found[place[1:]] = taken
        elif left:
            found[place] = left.pop(0)
    return found


def _receiver(call: Call, arguments: dict[str, object]) -> str:
    """The call's name; of another registry, on that one."""
    where = arguments.pop("registry", None)
    if where is not None and call.name.startswith("registry."):
        return f"rasura.open({where!r}).{call.name.removeprefix('registry.')}"
    return call.name


def _written(call: Call, arguments: Mapping[str, object]) -> str:
    if call.name.endswith(")"):
        return ""
    if not call.inner:
        return f"({_keywords(arguments)})"
    outer = {name: value for name, value in arguments.items() if name in call.outer}
    inner = {name: value for name, value in arguments.items() if name not in call.outer}
    request = f"request={call.inner}({_keywords(inner)})"
    return f"({', '.join(filter(None, [_keywords(outer), request]))})"


def _keywords(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _argument(found: re.Match[str]) -> str:
    """An option that stands alone, as an argument."""
    option, value = found[1], (found[2] or "").strip()
    name = _RENAMED.get(option, option[2:].replace("-", "_"))
    if option in _BARE_FLAGS:
        return f"{name}=True" + (f" {value}" if value else "")
    if not value:
        return name
    arguments: dict[str, object] = {}
    _take(Call("", renamed=_RENAMED), [option, *_split(value)], 0, arguments)
    return _keywords(arguments)
