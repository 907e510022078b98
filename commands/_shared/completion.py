"""What a shell completes besides commands and options: patches, stacks, bases and keys of the registry at hand."""

import re
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from rasura.registry._storage.completion import Kind

_PATCH: Final = re.compile(r"ID\b")
_STACK: Final = re.compile(r"STACK\b")


class Named(click.types.StringParamType):
    """A text that names something in the registry."""

    def __init__(self, kind: "Kind") -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What begins like this."""
        del param
        from rasura.commands._shared.nearest import find_nearest
        from rasura.patches.errors import RasuraError
        from rasura.registry._storage.completion import list_names
        from rasura.registry._storage.location import Location

        try:
            place = Location.of(ctx.params.get("registry_at") or find_nearest())
        except (RasuraError, OSError):
            return []
        return [CompletionItem(name, help=said) for name, said in list_names(place, self.kind, incomplete)]


def complete_names(command: click.Command) -> None:
    """Let the parameters of a command complete what their words for it say they name."""
    path = command.callback.__module__.rpartition(".")[2] if command.callback else ""
    for parameter in command.params:
        if parameter.type is click.STRING and (kind := _kind_of(parameter, path)) is not None:
            parameter.type = Named(kind)


def _kind_of(parameter: click.Parameter, noun: str) -> "Kind | None":
    if parameter.name in {"base", "base_ref"}:
        return "base"
    if parameter.name == "key" or (noun == "key" and parameter.name == "key_id"):
        return "key"
    word = parameter.metavar or ""
    if parameter.name == "stack" or _STACK.search(word) or (noun == "stack" and parameter.name == "name"):
        return "stack"
    return "patch" if _PATCH.search(word) else None
