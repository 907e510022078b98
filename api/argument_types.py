"""What may be given for an argument, read from the call's own annotations, before anything is done with it.

Whoever writes `certify("brand", ball="x")` gets the error that a command gives, not a `TypeError` from deep inside.
Only plain types are looked at: texts, numbers, paths, truth values, times, and lists and mappings of them. What an
annotation asks for besides (a `Policy`, a `Target`) is the business of what reads it.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError

__all__ = ["check_arguments"]

_ALIASES: Final = {
    "Ids": "rasura.registry.live.arguments",
    "Factor": "rasura.registry.live.arguments",
    "GoalRef": "rasura.registry.live.arguments",
    "Judgement": "rasura.registry.stacks.bisection.bisect",
    "Path": "pathlib",
    "datetime": "datetime",
}
"""Names of plain types, and of several spellings of one argument, that annotations use and only a checker imports."""
_SAID: Final[Mapping[object, str]] = {
    str: "a text",
    bytes: "bytes",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    Path: "a path",
    datetime: "a time",
    type(None): "None",
}
_PLAIN: Final = (str, bytes, bool, int, float, type(None), list, tuple, set, frozenset, dict)
"""Of these none is what an annotation means by a name that is not looked at here."""


class _Other:
    """Stands for a class that an annotation names and that is not looked at here."""

    def __class_getitem__(cls, _: object) -> type[_Other]:
        return cls


class _Names(dict[str, Any]):
    """What the names of an annotation mean: in its module, among the aliases, or something else."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, name: str) -> Any:
        known = self._known
        if name not in known and name in _ALIASES:
            known = vars(importlib.import_module(_ALIASES[name]))
        if name not in known and hasattr(builtins, name):
            raise KeyError(name)
        found = known.get(name, _Other)
        if isinstance(found, str):  # an alias of names that only a checker sees
            found = typing.get_type_hints(types.SimpleNamespace(__annotations__={name: found}), {}, _Names(known))[name]
        if isinstance(found, type) and found not in _SAID and found is not object and not _is_many(found):
            return _Other
        return found


def check_arguments(function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    """Refuse arguments of another plain type than the call asks for; what Python refuses itself is left to it.

    Raises:
        InputError: naming the argument, what is expected, and what was given.
    """
    signature, hints = _read(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return
    for name, value in bound.arguments.items():
        if name in hints and not _fits(value, hints[name]):
            wanted = " or ".join(dict.fromkeys(_say(hints[name])))
            raise InputError(f"{function.__name__}: {name}: expected {wanted}, got {show(value)}", argument=name)


@cache
def _read(function: Callable[..., object]) -> tuple[inspect.Signature, dict[str, Any]]:
    """The parameters of a call, and of those that are looked at what they may be."""
    signature = inspect.signature(function)
    named = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if parameter.annotation is not inspect.Parameter.empty
        and parameter.kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    }
    holder = types.SimpleNamespace(__annotations__=named)
    return signature, typing.get_type_hints(holder, {}, _Names(function.__globals__))


def _fits(value: object, wanted: Any) -> bool:
    """Whether a value may be this."""
    wanted = getattr(wanted, "__supertype__", wanted)
    if wanted is Any or wanted is object or isinstance(wanted, TypeVar):
        return True
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {typing.Union, types.UnionType}:
        # A mapping may be gone through, too; but where one is asked for, its values count.
        own = [part for part in parts if isinstance(value, Mapping) and typing.get_origin(part) is Mapping]
        return any(_fits(value, part) for part in own or parts)
    return _is_one(value, wanted) if origin is None else _is_generic(value, origin, parts)


def _is_generic(value: object, origin: Any, parts: tuple[Any, ...]) -> bool:
    if origin is Literal:
        return type(value) in set(map(type, parts))
    if origin is Callable:
        return callable(value)
    if not issubclass(origin, Mapping):
        return _fits_many(value, parts)
    return isinstance(value, Mapping) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())


def _fits_many(value: object, parts: tuple[Any, ...]) -> bool:
    """Several of a kind; what can be gone through only once is not gone through."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return False
    known = isinstance(value, list | tuple | set | frozenset | Mapping)
    return not known or not parts or all(_fits(each, parts[0]) for each in value)


def _is_one(value: object, wanted: type) -> bool:
    if wanted is _Other:
        return not isinstance(value, _PLAIN)
    if wanted is int or wanted is float:
        return isinstance(value, Integral if wanted is int else Real) and not isinstance(value, bool)
    return isinstance(value, os.PathLike if wanted is Path else wanted)


def _is_many(found: type) -> bool:
    return found in {list, tuple, set, frozenset, dict} or found.__module__ in {"collections.abc", "typing"}


def _say(wanted: Any) -> Iterator[str]:
    """What is expected, in words."""
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {typing.Union, types.UnionType}:
        for part in sorted(parts, key=lambda part: part is type(None)):  # what nobody would give comes last
            yield from _say(part)
    elif origin is Literal:
        yield from map(repr, parts)
    elif origin is not None and issubclass(origin, Mapping):
        yield f"a mapping of {_say_many(parts[0])} to {_say_many(parts[1])}"
    elif origin is Callable:
        yield "something to call"
    elif origin is not None:
        yield _say_many(parts[0])
    else:
        yield _SAID.get(getattr(wanted, "__supertype__", wanted), "an object of its kind")


def _say_many(wanted: Any) -> str:
    """Several of these, in words."""
    found = [said.partition(" ")[2] + "s" if said.startswith("a ") else said for said in _say(wanted)]
    return " or ".join(dict.fromkeys(found))
