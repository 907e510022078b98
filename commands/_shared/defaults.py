"""What a registry's config file says where the command line says nothing, and hints with what was typed in them."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from rasura.commands._shared.nearest import find_nearest
from rasura.commands._shared.output import note
from rasura.patches.errors import RasuraError
from rasura.registry._storage.location import Location

_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "key": ("key", str),
    "actor_key": ("actor_key", str),
    "retain": ("retain", Path),
    "template_files": ("templates", lambda text: (Path(text),)),
    "judge": ("judge", str),
    "policy_file": ("policy", Path),
}
"""By the name of an option's value: the name in the file, and what the value is made of."""

_TYPED: Final = frozenset({"MODEL", "STACK", "REPO"})
"""Placeholders of hints that mean what the command line gave under the same name."""


def fill_defaults(context: click.Context, options: dict[str, Any]) -> dict[str, str]:
    """Put the config file's values where the command line gave none; gives those that were put in.

    A plan names its own policy, and prompts that are spelt out on the command line are all.

    Raises:
        InputError: the file is not what it should be.
    """
    wanted = {
        p.name: _OPTIONS[p.name]
        for p in context.command.params
        if isinstance(p, click.Option)
        and p.name in _OPTIONS
        and context.get_parameter_source(p.name) is ParameterSource.DEFAULT
    }
    folder = _folder(options.get("registry_at")) if wanted else None
    if folder is None:
        return {}
    from rasura.registry._storage.config import Config

    config = Config.read(folder)
    used = {}
    for option, (name, make) in wanted.items():
        value = getattr(config, name)
        if value is None or _taken(option, options):
            continue
        options[option] = make(value)
        used[name] = value
    if used and not options.get("as_json"):
        told = ", ".join(f"{name} = {value}" for name, value in used.items())
        note(f"from {folder.name}/config.toml: {told}")
    return used


def fill_hint(hint: str, context: click.Context, options: Mapping[str, Any]) -> str:
    """A hint with the model, stack or repository that the command was given in place of the word for it."""
    given: dict[str, set[str]] = {}
    for parameter in context.command.params:
        value = options.get(parameter.name or "")
        word = parameter.metavar or ""
        if word in _TYPED and isinstance(value, str | Path):
            given.setdefault(word, set()).add(str(value))
    for word, values in given.items():
        if len(values) == 1:
            text = shlex.quote(values.pop()).replace("\\", r"\\")
            hint = re.sub(rf"(?<![\w.-]){word}(?![\w.-])", text, hint)
    return hint


def _taken(option: str, options: Mapping[str, Any]) -> bool:
    if option == "template_files":
        return bool(options.get("templates"))
    return option == "policy_file" and any(str(i).endswith(".json") for i in options.get("ids", ()))


def _folder(location: str | None) -> Path | None:
    """The registry's folder; None where there is none, which the command will say itself."""
    try:
        return (Location.of(location or find_nearest())).folder
    except (RasuraError, OSError):
        return None
