"""The question before what cannot be undone: scripts answer it with `--yes`; where nobody can, nothing happens."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rasura.commands._shared.output import clean, line

if TYPE_CHECKING:
    from rasura.registry.apply.preconditions.loss import Loss

YES = click.option("--yes", "-y", is_flag=True, help="Un-erase without asking.")
DRY = click.option("--dry-run", is_flag=True, help="Say what it would do, and stop.")


def ask_unerasing(losses: "Sequence[Loss]", place: str, *, yes: bool) -> None:
    """Name what comes back, and ask; without losses nothing is asked.

    Raises:
        UsageError: nobody is there to ask.
        Abort: the answer is no.
    """
    if yes or not losses:
        return
    _ask(f"on {place}, this brings back: {', '.join(map(str, losses))}")


def ask_revoking(said: Sequence[str], *, yes: bool) -> None:
    """Say what a revocation touches, and ask.

    Raises:
        UsageError: nobody is there to ask.
        Abort: the answer is no.
    """
    if not yes:
        _ask("\n".join(said))


def _ask(said: str) -> None:
    if click.get_current_context().params.get("as_json") or not sys.stdin.isatty():
        raise click.UsageError(
            f"{clean(said)}; nobody can be asked here: expected --yes to do it, or --dry-run to see what it would do"
        )
    line(said)
    click.confirm("Do it?", abort=True)
