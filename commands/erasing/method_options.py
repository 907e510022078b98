"""Options that say by which method a concept is erased, with which choices; of `erase` and `takedown` alike."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rasura.patches.erasers.catalogue import eraser

if TYPE_CHECKING:
    from rasura.patches.erasers.interface import Eraser

F = TypeVar("F", bound=Callable[..., Any])

METHOD: Final = "null-space"
_OPTIONS: Final = (
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A choice of the method; repeatable."),
    click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="Seed of a method that draws random numbers."),
    click.option("--layers", metavar="NAMES", help="Which layers, such as k, v, kv, text [default: the method's]."),
    click.option(
        "--tokens",
        type=click.Choice(["last", "subject", "tail", "end"]),
        help="Which tokens stand for the concept [default: the method's].",
    ),
    click.option("--rank-rule", metavar="RULE", help="Cut of the retained spectrum [default: the method's]."),
)


def method_choices(function: F) -> F:
    """A command with the options that follow `--method`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read_method(method: str, settings: tuple[str, ...], seed: int | None) -> "Eraser":
    """The method with these choices.

    Raises:
        UsageError: a choice without a value.
        InputError: see `rasura.patches.erasers.catalogue.eraser`.
    """
    pairs = [setting.partition("=") for setting in settings]
    if odd := next((name for name, equals, _ in pairs if not equals), None):
        raise click.UsageError(f"--set {odd}: expected NAME=VALUE")
    chosen = {name: value for name, _, value in pairs}
    return eraser(method, chosen | ({} if seed is None else {"seed": str(seed)}))
