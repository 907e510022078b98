"""What every command shares: `--json`, `--registry`, and for those that change something `--reason` and `--actor`."""

import difflib
import functools
import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rasura.commands._shared.completion import complete_names
from rasura.commands._shared.nearest import find_nearest
from rasura.commands._shared.output import Result, show
from rasura.commands._shared.password import PASSWORD_FILE, ask_password
from rasura.commands._shared.retyping import complete_hint
from rasura.patches.errors import InputError, RasuraError

if TYPE_CHECKING:
    from rasura.patches.obstacles import Obstacles
    from rasura.patches.types import PatchId
    from rasura.registry._storage.records.records import Draft
    from rasura.registry.apply.receipt import Actor
    from rasura.registry.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Order:
    """An order to change something: of which registry, by whom, and why.

    Attributes:
        registry_at: what was typed, or None for the nearest registry.
        name: who; goes into the audit log.
        reason: why, as it was typed; goes into the audit log.
        key: their key, which signs the entries of the log: a name, or a file; None: who it is is what they say.
    """

    registry_at: str | None
    name: str
    reason: str
    key: str | None = None

    def open(self, obstacles: "Obstacles | None" = None) -> "Registry":
        """The registry; see `open_registry`."""
        registry = open_registry(self.registry_at, obstacles)
        try:
            self._sign(registry)
        except BaseException:
            registry.close()
            raise
        return registry

    def _sign(self, registry: "Registry") -> None:
        """What is done is signed by who does it; without a key, that must be allowed."""
        context = click.get_current_context()
        if self.key is not None:
            from rasura.registry.trust.keys.key_files import act_by

            act_by(registry, self.key)
        elif not context.params.get("dry_run") and context.params.get("output", "") is not None:
            registry.check_signed("key.add" if context.command_path.endswith(" key new") else context.command_path)

    @property
    def actor(self) -> "Actor":
        """Who and why, for what moves models and stacks."""
        from rasura.registry.apply.receipt import Actor

        return Actor(self.name, self.reason)

    def draft(self, action: str, details: "Mapping[str, str | int]" = MappingProxyType({})) -> "Draft":
        """The entry of what is about to be done, noun.verb; where it goes wrong, the log says that instead."""
        from rasura.registry._storage.records.records import Draft

        return Draft(self.name, self.reason, action, "success", details=details)


class Verbs(click.Group):
    """A group of commands that says what was probably meant where a name is none of them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which are like it.

        Raises:
            UsageError: there is none of this name.
        """
        name = click.utils.make_str(args[0])
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = self.find_near(ctx, name)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)

    def find_near(self, ctx: click.Context, name: str) -> str:
        """The commands whose names are like this one, as they are typed."""
        near = difflib.get_close_matches(name, self.list_commands(ctx), n=2)
        return " or ".join(f"'{ctx.command_path} {each}'" for each in near)


IDS = click.argument("ids", nargs=-1, required=True, metavar="ID|CONCEPT...")
MODEL_HELP = "Model folder, or single-file checkpoint."
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON envelope.")
_REGISTRY = click.option(
    "--registry",
    "registry_at",
    metavar="DIR|URL",
    envvar="RASURA_REGISTRY",
    help="Registry to use [default: the nearest .rasura upwards].",
)
_REASON = click.option("--reason", default="", metavar="TEXT", help="Why, or a ticket; goes into the audit log.")
_CASE = click.option("--case", "of_case", metavar="ID", help="The case that this belongs to: rasura case list.")
_WITHOUT_CASE = frozenset(
    {"anchor", "audit", "bisect", "case", "key", "policy", "init", "demo", "doctor", "gc", "witness"}
)
"""Nouns and verbs that serve no single request."""
_ACTOR = click.option("--actor", envvar="RASURA_ACTOR", metavar="NAME", help="Who [default: the user's login name].")
_ACTOR_KEY = click.option(
    "--actor-key", envvar="RASURA_ACTOR_KEY", metavar="NAME|FILE", help="Their key, which signs the log's entries."
)
_UNSIGNED = frozenset({"init", "demo"})
"""Commands on registries that have no keys yet."""


def command(group: click.Group | None, name: str, *, mutating: bool = False) -> Callable[[F], click.Command]:
    """Make a command out of a function that returns a `Result`.

    The function gets `registry_at` (str or None) or, if it changes something, `order`.
    """

    def decorate(function: F) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, **options: Any) -> int:
            context = click.get_current_context()
            path = context.command_path.removeprefix("rasura ")
            context.ensure_object(dict)["command"] = path
            if mutating:
                options["actor"] = options["actor"] or _login()
            options.pop("of_case", None)  # what is opened below belongs to it: `open_registry`
            from rasura.commands._shared.defaults import fill_defaults, fill_hint

            try:
                used = fill_defaults(context, options)
                result = function(*args, **(_give_order(options) if mutating else options))
            except RasuraError as error:
                for each in (error, *error.others):
                    each.hint = complete_hint(fill_hint(each.hint, context, options), context)
                raise
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_describe_interruption(context, options)) from None
            assert isinstance(result, Result)
            if used:
                result = replace(result, data={**result.data, "config": used})
            show(result, path, as_json=as_json)
            return result.exit_code

        names = {name, group.name if group is not None else None}
        signed = mutating and not _UNSIGNED & names
        wrapped: Callable[..., Any] = _unlocking(function, _REGISTRY(_JSON(run)), signed=signed)
        if mutating:
            wrapped = _with_who_and_why(wrapped, names)
        made = click.command(name)(wrapped)
        complete_names(made)
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def _unlocking(function: Callable[..., Any], wrapped: Callable[..., Any], *, signed: bool) -> Callable[..., Any]:
    """What signs takes the password of a locked key."""
    there = {parameter.name for parameter in getattr(function, "__click_params__", ())}
    return PASSWORD_FILE(wrapped) if "key" in there or (signed and "password_file" not in there) else wrapped


def _with_who_and_why(wrapped: Callable[..., Any], names: set[str | None]) -> Callable[..., Any]:
    """What goes into the log with every change: who, why, and the case, where there can be one."""
    wrapped = _ACTOR(_REASON(wrapped))
    wrapped = wrapped if _UNSIGNED & names else _ACTOR_KEY(wrapped)
    return wrapped if _WITHOUT_CASE & names else _CASE(wrapped)


def _give_order(options: dict[str, Any]) -> dict[str, Any]:
    """The options with where, who and why as one value."""
    rest = {n: value for n, value in options.items() if n not in {"registry_at", "actor", "actor_key", "reason"}}
    order = Order(options["registry_at"], options["actor"], options["reason"], options.get("actor_key"))
    return rest | {"order": order}


def open_registry(location: str | None, obstacles: "Obstacles | None" = None) -> "Registry":
    """The registry that was named, or the nearest one upwards from the working folder.

    Args:
        location: what was typed, or None.
        obstacles: gets the missing reason; whoever gives it refuses before anything is done.

    Raises:
        NoRegistryError: there is none.
        InputError: the policy in force asks for a reason, and none was given to a command that changes something: not
            to one that is asked what it would do, or that names no file for what it would print.
        NotFoundError, ConflictError: there is no case of the identifier that was given, or it is closed.
    """
    from rasura.registry.registry import Registry

    registry = Registry.open(location or find_nearest())
    registry.ask_password = ask_password
    given = click.get_current_context().params
    if "reason" in given and not given.get("dry_run") and given.get("output", "") is not None:
        try:
            if given.get("model"):
                click.get_current_context().ensure_object(dict)["entries"] = registry.head().size
            if given.get("of_case"):
                registry.belong_to(given["of_case"])
            registry.check_reason(given["reason"])
        except BaseException as error:
            if obstacles is not None and isinstance(error, InputError):
                obstacles.add(error)
                return registry
            registry.close()
            raise
    return registry


def find_patches(registry: "Registry", refs: Sequence[str], obstacles: "Obstacles") -> "list[PatchId]":
    """The patches that were named, as far as they are there."""
    found = []
    for ref in refs:
        with obstacles.noting():
            found.append(registry.resolve_patch(ref))
    return found


def _describe_interruption(context: click.Context, options: dict[str, Any]) -> str:
    """Whether the motion that was interrupted happened; "" of a command that moves no model on disk."""
    size, model = context.ensure_object(dict).get("entries"), options.get("model")
    if size is None or model is None:
        return ""
    from rasura.registry.apply.hosts.interrupted import describe_interruption

    try:
        with open_registry(options.get("registry_at")) as registry:
            return describe_interruption(registry, options.get("out") or model, size)
    except RasuraError as error:
        return error.message


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
