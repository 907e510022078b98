"""The front door: `rasura` parses, calls one function, prints. Commands live in `rasura.commands`, one module a noun.

This module imports click and nothing heavier, and a noun's module is imported when the noun is typed, so that
`rasura --help` answers at once. It is also the one place where errors become exit codes:

    0 ok    1 error    2 usage    3 refused by a check    4 verification failed    5 base mismatch
    6 drift: a model changed outside the registry    7 conflict    8 not found    130 interrupted
"""

import importlib
import sys
from typing import Final

import click

from rasura import __version__
from rasura.patches.errors import RasuraError

_EXIT_CODES: Final = "\b\nExit codes:\n" + "\n".join(
    f"  {line.strip()}" for line in (__doc__ or "").split("codes:\n")[-1].splitlines() if line.strip()
)
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141

# Noun or verb: the module and attribute that hold it, and the line that help shows without importing it.
_COMMANDS: Final = {
    "init": ("rasura.commands.registry:init", "Make a registry here."),
    "demo": ("rasura.commands.demo:demo", "Erase, check, apply, revert and verify on a small real model."),
    "key": ("rasura.commands.key:key", "Signing keys: make, list, export, trust, revoke."),
    "base": ("rasura.commands.base:base", "Base models: add, list, show."),
    "erase": ("rasura.commands.erase:erase", "Erase concepts: one signed, separable patch each."),
    "patch": ("rasura.commands.patch:patch", "Patches: list, show, verify, check, apply, revert, status."),
    "audit": ("rasura.commands.audit:audit", "The tamper-evident log: show and verify."),
    "push": ("rasura.commands.hub:push", "Push patches to a Hugging Face Hub repository."),
    "pull": ("rasura.commands.hub:pull", "Pull verified patches from a Hugging Face Hub repository."),
}


class Nouns(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every noun and verb, in the order of a day's work."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.command(cls=Nouns, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="rasura")
def cli() -> None:
    """Erase concepts from text-to-image models as signed, separable, exactly revertible patches."""


def main() -> None:
    """Run the command line and end the process with a documented exit code."""
    try:
        code = cli.main(standalone_mode=False, prog_name="rasura")
    except RasuraError as error:
        code = _report(error.code, error.message, error.hint, error.exit_code, error.details)
    except click.UsageError as error:
        code = _usage(error)
    except click.ClickException as error:
        code = _report("error", error.format_message(), "", error.exit_code, {})
    except (click.Abort, KeyboardInterrupt):
        code = _report("interrupted", "interrupted", "", _INTERRUPTED, {})
    except BrokenPipeError:
        sys.stderr.close()
        code = _BROKEN_PIPE
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.UsageError) -> int:
    if _wants_json():
        return _report("usage", error.format_message(), "", error.exit_code, {})
    error.show()
    return error.exit_code


def _report(code: str, message: str, hint: str, exit_code: int, details: dict[str, object]) -> int:
    from rasura.commands.output import print_error

    print_error(code=code, message=message, hint=hint, details=details, as_json=_wants_json())
    return exit_code


def _wants_json() -> bool:
    return "--json" in sys.argv[1:]
