"""The front door: `rasura` parses, calls one function, prints. `rasura.commands` has the commands, one module a noun.

This module imports click and nothing heavy, and a noun's module is imported when the noun is typed, so that
`rasura --help` answers at once. It is also the one place where errors become exit codes:

    0 ok    1 error    2 usage    3 refused by a check    4 verification failed    5 base mismatch
    6 drift: a model changed outside the registry    7 conflict    8 not found    130 interrupted
"""

import atexit
import gc
import importlib
import io
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from rasura import __version__
from rasura.commands._shared.command import Verbs
from rasura.commands._shared.output import Failure, print_failure
from rasura.patches.errors import InputError, OutputError, RasuraError

_EXIT_CODES: Final = "\b\nExit codes:\n" + "\n".join(
    f"  {line.strip()}" for line in (__doc__ or "").split("codes:\n")[-1].splitlines() if line.strip()
)
_ERROR: Final = 1
_INTERRUPTED: Final = 130

# Noun or verb, or a verb of a verb: the module of `rasura.commands` and the attribute that hold it, and the line that
# help shows without importing it.
_COMMANDS: Final = {
    "init": ("registry.init:init", "Make a registry here."),
    "demo": ("erasing.demo:demo", "Erase, check, apply, revert and verify on a small real model."),
    "key": ("proving.key:key", "Signing keys: make, add from a token, list, export, trust, revoke."),
    "base": ("registry.base:base", "Base models: add, list, show."),
    "takedown": ("erasing.takedown:takedown", "Take concepts down beside all that is erased, in one motion."),
    "withdraw": ("erasing.withdraw:withdraw", "Take takedowns back; all others stay erased."),
    "erase": ("erasing.erase:erase", "Erase concepts: one signed, separable patch each."),
    "adopt": ("erasing.adopt:adopt", "Make a signed patch of an erasure that another program made."),
    "probe": ("registry.probe:probe", "Find what of a model reads text alone."),
    "methods": ("erasing.methods:methods", "List the erasers and their choices."),
    "patch": (
        "registry.patch:patch",
        "Patches: list, sign, approve, check, apply, switch, revert, solve anew, retire, find the one that does harm.",
    ),
    "stack": ("applying.stack:stack", "Stacks: create, add, remove, show, list, delete, update, retarget, diff, lock."),
    "host": ("registry.status:host", "Models that something was applied to: list."),
    "status": ("registry.status:status", "Say where the registry stands: what is in force where, what is open."),
    "log": ("registry.log:log", "Say what happened lately, a line an event."),
    "undo": ("applying.undo:undo", "Take the last motion of a model or a stack back."),
    "policy": ("checking.policy:policy", "The policy in force: show, set."),
    "trust": ("proving.trust:trust", "Who may approve what, and how many must: show, sign, set."),
    "plan": ("applying.plan:plan", "Say what switching a model to a stack would change."),
    "plan approve": ("applying.plan:approve", "Approve all that a plan puts in, as the trust policy asks for."),
    "evaluate": ("checking.evaluate:evaluate", "Draw with and without patches, and have a classifier judge it."),
    "evaluation": ("checking.evaluation:evaluation", "Evaluation results: list, show."),
    "doctor": ("registry.doctor:doctor", "Find what processes that died left behind, and put it right."),
    "gc": ("registry.gc:gc", "Remove stored bytes that nothing refers to."),
    "case": ("proving.case:case", "Requests with their clocks: open, list, show, close, hold, forget."),
    "audit": ("proving.audit:audit", "The tamper-evident log: show, prove, take out, verify."),
    "report": ("proving.report:report", "Write what was asked, done and measured as one signed page."),
    "attest": ("proving.attest:attest", "Say what a model on disk is, signed, for those without a registry."),
    "verify": ("proving.attest:verify", "Check a report, or a model on disk with what was attested of it."),
    "bundle": ("sharing.bundle:bundle", "Patches for a colleague in one file: make, show, add."),
    "push": ("sharing.hub:push", "Push patches to a Hugging Face Hub repository."),
    "pull": ("sharing.hub:pull", "Pull verified patches from a Hugging Face Hub repository."),
}


class Nouns(Verbs):
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
        command = getattr(importlib.import_module(f"rasura.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of two words, where the first is a command as well.

        Raises:
            UsageError: there is none of this name.
        """
        both = " ".join(args[:2])
        return super().resolve_command(ctx, [both, *args[2:]] if len(args) > 1 and both in _COMMANDS else args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Words that begin like this: a shell takes one at a time."""
        return [item for item in super().shell_complete(ctx, incomplete) if " " not in item.value]

    def find_near(self, ctx: click.Context, name: str) -> str:
        """Commands of this name below the nouns, else those of a similar name here."""
        nouns = {noun: self.get_command(ctx, noun) for noun in _COMMANDS}
        below = [n for n, command in nouns.items() if isinstance(command, click.Group) and name in command.commands]
        return " or ".join(f"'rasura {noun} {name}'" for noun in below) or super().find_near(ctx, name)

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
    atexit.register(gc.freeze)  # an interpreter that ends looks through all that was imported for garbage: for nothing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _answer()
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more
        code = _ERROR
        _drop_output()
    except OSError as error:  # an error that could not be said where it was asked for
        code = _report({}, OutputError.code, f"expected to print the answer, got {error.strerror}", _ERROR)
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Send what standard output did not take nowhere: the interpreter would complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answer() -> int:
    """Run the command; whatever it raises becomes a sentence, or an envelope, and an exit code."""
    seen: dict[str, Any] = {}  # a command writes its name here before it does anything
    try:
        code = cli.main(standalone_mode=False, prog_name="rasura", obj=seen)
    except RasuraError as error:
        if isinstance(error, OutputError):
            _drop_output()
        return _refuse(seen, error)
    except click.ClickException as error:
        if isinstance(error, click.UsageError):
            return _usage(error)
        return _report(seen, "error", error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        said = str(stop.__cause__ or stop)  # click makes an Abort of what was interrupted
        return _report(seen, "interrupted", f"interrupted: {said}" if said else "interrupted", _INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # machines get their envelope in any case
        return _report_unexpected(seen, error)
    return code if isinstance(code, int) else 0


def _report_unexpected(seen: Mapping[str, str], error: Exception) -> int:
    """What no function of ours made an error of: half a character that was typed, or a defect of ours."""
    if isinstance(error, OSError) and _was_printing(error):
        raise error
    if isinstance(error, UnicodeEncodeError):
        said = f"expected Unicode text, got half a character in {str(error.object)[:60]!a}"
        return _report(seen, InputError.code, said, InputError.exit_code)
    traceback.print_exception(error)
    hint = "this is a defect of rasura: please report it with the lines above"
    return _report(seen, "internal", f"{type(error).__name__}: {error}", _ERROR, hint=hint)


def _was_printing(error: OSError) -> bool:
    """Whether this came from a write to standard output, of help or of a version."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__") == "click.utils"


def _usage(error: click.UsageError) -> int:
    if _wants_json():
        path = error.ctx.command_path if error.ctx else ""
        seen = {"command": path.removeprefix("rasura").strip()}
        return _report(seen, "usage", error.format_message(), error.exit_code)
    error.show()
    return error.exit_code


def _refuse(seen: Mapping[str, str], error: RasuraError) -> int:
    first, *others = (
        Failure(seen.get("command", ""), each.code, each.message, each.hint, each.details)
        for each in (error, *error.others)
    )
    print_failure(replace(first, others=tuple(others)), as_json=_wants_json())
    return error.exit_code


def _report(
    seen: Mapping[str, str],
    code: str,
    message: str,
    exit_code: int,
    *,
    hint: str = "",
) -> int:
    failure = Failure(seen.get("command", ""), code, message, hint, {})
    print_failure(failure, as_json=_wants_json())
    return exit_code


def _wants_json() -> bool:
    arguments = sys.argv[1:]
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]
