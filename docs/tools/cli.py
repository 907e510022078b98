"""Writes docs/cli.md from the help texts of the program, or with --check says whether it is up to date.

`python docs/tools/cli.py [--check]`
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from rasura.cli import cli

PAGE: Final = Path(__file__).parents[1] / "cli.md"
WIDTH: Final = 100
_INTRODUCTION: Final = """\
# The command line

Made from the program's own help by `make fix`; `make check` says when it is out of date.

Every command takes `--json`, which prints one envelope on standard output and nothing else:

```json
{"schema": "envelope/1", "ok": true, "command": "…", "version": "…", "data": {}, "error": null, "changed": false}
```

On failure `ok` is false and `error` holds `code`, `message`, `hint` and `details`. Codes and exit codes are fixed;
messages are for people and may change. Where a command did its work and what it found ends it with another exit code
than 0 (drift, `--exit-code`, `--detailed-exitcode`), `ok` is false, `error` is null, and `data` is there. Progress and
errors go to standard error.
"""


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """A command and everything below it, in the order of the help."""
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, parent, info_name=name, **settings)
    yield context, command
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, child, context)


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for context, command in commands(cli, "rasura"):
        name = context.command_path
        level = "##" if name.count(" ") <= 1 else "###"
        parts.append(f"{level} `{name}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    made = page()
    if not parser.parse_args().check:
        PAGE.write_text(made, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
        sys.exit(f"{PAGE.name} is not what the program's help says; run `make fix`")


if __name__ == "__main__":
    main()
