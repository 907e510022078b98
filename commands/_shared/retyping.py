"""Hints that are the command which is running, as somebody typed it, with what was wrong in it changed."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from rasura.patches.errors import ErasureRefusedError, StrengthError

__all__ = ["complete_hint", "retype", "retyping_anchors", "retyping_strengths"]


def retype(**changed: Sequence[str]) -> str:
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
