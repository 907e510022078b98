"""Hints that are the command which is running, as somebody typed it, with what was wrong in it changed."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click

from rasura.patches.errors import ErasureRefusedError, StrengthError

__all__ = ["complete_hint", "retype", "retyping_anchors", "retyping_strengths"]

_PLACEHOLDER: Final = re.compile(r"[A-Z]+")
"""What a hint calls a value that only people know."""


def retype(**changed: Sequence[str | bool]) -> str:
    """The command that is running as somebody typed it, with other values for these options."""
    context = click.get_current_context()
    words = ["rasura", *context.command_path.split()[1:]]
    for parameter in context.command.params:
        name = str(parameter.name)
        typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        value = changed.get(name, context.params.get(name) if typed else None)
        values = value if isinstance(value, list | tuple) else () if value in {None, False} else (value,)
        for item in values:
            option = parameter.opts[:1] if isinstance(parameter, click.Option) else []
            words += option if item is True else [*option, shlex.quote(str(item))]
    return " ".join(words)


@contextmanager
def retyping_strengths(name: str, members: Sequence[str]) -> Iterator[None]:
    """Where a patch's strength is none, the hint is what was typed, with one in its place; `name` is the parameter's.

    Raises:
        StrengthError: the same.
    """
    from rasura.registry.stacks.edit import mend_member

    try:
        yield
    except StrengthError as error:
        error.hint = retype(**{name: [mend_member(text) for text in members]})
        raise


def complete_hint(hint: str, context: click.Context) -> str:
    """A hint that is an option of this command, as the whole command: what was typed, and that option.

    What is an option of most commands is an argument of some, as the model of `probe` and `base add`.
    """
    if hint.startswith("rasura "):
        return _keep_typed(hint, context)
    option, _, value = hint.partition(" ")
    given = next((p for p in context.command.params if isinstance(p, click.Argument) and f"--{p.name}" == option), None)
    if given is not None and len(words := shlex.split(value)) == 1:
        return retype(**{str(given.name): words, "as_json": ()})
    found = next((p for p in context.command.params if isinstance(p, click.Option) and option in p.opts), None)
    if found is None or found.is_flag != (not value):
        return hint
    return f"{retype(**{str(found.name): (), 'as_json': ()})} {hint}"


@contextmanager
def retyping_anchors(concepts: Sequence[str], anchors: Sequence[str], default: str) -> Iterator[None]:
    """Where a refusal names anchors that would do, its hint is what was typed, with the first of them.

    Where a method did too little, it is what was typed without the method's choices, or with a coarser rule.
    """
    try:
        yield
    except ErasureRefusedError as error:
        match error.details:
            case {"concept": str(concept), "anchors": [str(anchor), *_]} if concept in concepts:
                own = [*anchors] if len(anchors) == len(concepts) else [*(anchors or [default])[:1]] * len(concepts)
                own[concepts.index(concept)] = anchor
                error.hint = retype(anchors=own)
            case {"concept": str(concept), "moved": str(), "rule": str(rule)} if concept in concepts:
                error.hint = retype(rank_rule=rule)
            case {"concept": str(concept), "moved": str()} if concept in concepts:
                error.hint = retype(method=(), settings=(), seed=(), layers=(), tokens=(), rank_rule=())
        raise


def _keep_typed(hint: str, context: click.Context) -> str:
    """A command, with what was typed in place of what a hint can only name: TEXT of `--concept`, FILE of `--retain`.

    Of the command that is running, all else that was typed stays as well.
    """
    try:
        words = shlex.split(hint.removesuffix(" …"))
    except ValueError:
        return hint
    options = {name: p for p in context.command.params if isinstance(p, click.Option) for name in p.opts}
    path = ["rasura", *context.command_path.split()[1:]]
    if not any(b in options and _PLACEHOLDER.fullmatch(w) for b, w in itertools.pairwise(words)) or "or" in words:
        return hint
    argued = any(_typed(str(p.name), context) for p in context.command.params if isinstance(p, click.Argument))
    if argued or words[: len(path)] != path or not _are_options(words[len(path) :], options):
        return _fill(words, options, context)
    changed: dict[str, list[Any]] = {"as_json": []}
    for option, value in _pairs(words[len(path) :], options):
        name = str(options[option].name)
        if not (isinstance(value, str) and _PLACEHOLDER.fullmatch(value) and _typed(name, context)):
            changed.setdefault(name, []).append(value)
    return retype(**changed)


def _fill(words: Sequence[str], options: Mapping[str, click.Option], context: click.Context) -> str:
    """The words, with what was typed where they only name what stands there; an option that was not typed stays so."""
    found: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        typed = _typed(str(options[before].name), context) if before in options else ()
        if typed and _PLACEHOLDER.fullmatch(word) and before not in {"-o", "--output"}:
            found += [shlex.quote(str(typed[0]))]
            for item in typed[1:]:
                found += [before, shlex.quote(str(item))]
        else:
            found.append(shlex.quote(word))
    return " ".join(found)


def _pairs(words: Sequence[str], options: Mapping[str, click.Option]) -> Iterator[tuple[str, str | bool]]:
    rest = iter(words)
    for word in rest:
        yield word, True if options[word].is_flag else next(rest)


def _are_options(words: Sequence[str], options: Mapping[str, click.Option]) -> bool:
    """Whether these words are options of the command and their values, and nothing else."""
    rest = iter(words)
    return all(word in options and (options[word].is_flag or next(rest, None) is not None) for word in rest)


def _typed(name: str, context: click.Context) -> tuple[Any, ...]:
    """What was typed for a parameter."""
    value = context.params.get(name)
    if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE or value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)
