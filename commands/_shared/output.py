"""The only place that prints: one JSON envelope for machines, tables for people, errors and progress on stderr."""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import click

from rasura import __version__
from rasura.patches.errors import OutputError

SCHEMA: Final = "envelope/1"
SHORT_ID: Final = 12
NOTHING_MADE: Final = "dry run: nothing was signed or registered"
_JUDGING: Final = frozenset({"verdict", "kept"})
"""Columns of verdicts, and what their cells say."""
_SAYS: Final[Mapping[str, bool]] = {"ok": True, "yes": True, "REFUSED": False, "NO": False}


@dataclass(frozen=True, slots=True)
class Result:
    """What a command has to say.

    Attributes:
        data: for machines; JSON values.
        text: for people; called only when they read.
        changed: whether the command changed anything.
        exit_code: 0, or what a finding ends with.
    """

    data: Mapping[str, Any]
    text: Callable[[], None]
    changed: bool = False
    exit_code: int = 0


def show(result: Result, command: str, *, as_json: bool) -> None:
    """Print a result in the way that was asked for.

    Raises:
        OutputError: standard output takes no more.
    """
    with printing(command, "; what it was asked to do is done" if result.changed else ""):
        if as_json:
            ok = result.exit_code == 0
            _print_json(ok=ok, command=command, data=result.data, error=None, changed=result.changed)
        else:
            result.text()


@contextmanager
def printing(command: str, done: str = "") -> Iterator[None]:
    """What is printed inside stands on standard output at the end; `done` is what a failure does not undo.

    Raises:
        OutputError: standard output takes no more.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"expected to print what {command} found, got {error.strerror}{done}") from None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not do what it was asked.

    Attributes:
        command: which; "" where none was found.
        code: the error's registered name.
        message: a sentence.
        hint: the next command to type, or "".
        details: for machines; JSON values.
        others: what else stands in the way.
    """

    command: str
    code: str
    message: str
    hint: str
    details: Mapping[str, object]
    others: "tuple[Failure, ...]" = ()

    def encode(self) -> dict[str, Any]:
        """What went wrong, for machines, without what else did."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}


def print_failure(failure: Failure, *, as_json: bool) -> None:
    """Print an error: to stdout as an envelope for machines, to stderr as a sentence and a hint for people.

    Where several things stand in the way, each has its sentence and its hint. What standard output does not take goes
    to stderr.
    """
    if as_json and failure.code != OutputError.code:
        error = failure.encode() | {"others": [other.encode() for other in failure.others]}
        _print_json(ok=False, command=failure.command, data=None, error=error, changed=False)
        return
    for each in (failure, *failure.others):
        complain(f"{tint('error:', good=False, err=True)} {clean(each.message)}")
        if each.hint:
            complain(f"hint: {clean(each.hint)}")
    if failure.others:
        complain(f"{len(failure.others) + 1} things stand in the way: nothing was done")


def complain(text: str) -> None:
    """A line on stderr; where nobody can read it, the work goes on and the exit code tells."""
    with suppress(OSError):
        click.echo(text, err=True)


def clean(text: str) -> str:
    """Text without characters that could move a terminal's cursor or turn its reading direction."""
    return "".join(c if c.isprintable() and unicodedata.category(c) != "Cf" else f"\\u{ord(c):04x}" for c in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, head: bool = True) -> None:
    """Print aligned columns; headers in upper case, but not where a list goes on (`head`).

    No box characters, so that cut and awk work too.

    On a terminal a table stays inside it: long cells are cut, never below twelve characters, so ids stay whole; where
    that is not enough, the last columns are left out and named. Elsewhere nothing is cut.
    """
    shown = [[name.upper() for name in headers], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[i]) for row in shown) for i in range(len(headers))]
    left_out = _fit(widths, _columns())
    for row in shown if head else shown[1:]:
        cells = [clip(cell, width) for cell, width in zip(row, widths, strict=False)]
        gaps = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=False)]
        gaps[-1] = ""
        judged = [_judge(cell) if name in _JUDGING else cell for name, cell in zip(headers, cells, strict=False)]
        click.echo("  ".join(cell + gap for cell, gap in zip(judged, gaps, strict=True)).rstrip())
    if left_out and head:
        names = ", ".join(headers[len(widths) :])
        click.echo(f"(no room for {names}: a wider terminal, or --json, shows {'it' if left_out == 1 else 'them'})")


def _fit(widths: list[int], columns: int | None) -> int:
    """Make columns narrower until they fit; gives how many of the last ones had to go."""
    if columns is None:
        return 0
    before = len(widths)
    while (over := sum(widths) + 2 * (len(widths) - 1) - columns) > 0:
        widest = max(range(len(widths)), key=lambda i: widths[i])
        if widths[widest] > SHORT_ID:
            widths[widest] = max(SHORT_ID, widths[widest] - over)
        elif len(widths) > 1:
            widths.pop()
        else:
            break
    return before - len(widths)


def _columns() -> int | None:
    """How wide the terminal is; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def clip(text: str, width: int) -> str:
    """A text of at most so many columns of a terminal, with a mark where something was cut off."""
    if _width(text) <= width:
        return text
    kept = ""
    for character in text:
        if _width(kept + character) > width - 1:
            break
        kept += character
    return kept + "…"


def verdict(text: str, *, good: bool) -> None:
    """Print a line that says how it is: in green or red where standard output is a terminal that may have colours."""
    click.echo(tint(clean(text), good=good))


def tint(text: str, *, good: bool, err: bool = False) -> str:
    """A verdict in its colour: green or red where it is printed to a terminal that may have colours, else as it is."""
    return click.style(text, fg="green" if good else "red") if colourful(err=err) else text


def _judge(cell: str) -> str:
    """A cell of a column of verdicts."""
    return tint(cell, good=_SAYS[cell]) if cell in _SAYS else cell


def colourful(*, err: bool = False) -> bool:
    """Whether verdicts may have a colour: on terminals, unless NO_COLOR says otherwise (https://no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print `name  value` lines, names aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        shown = clean(value)
        if name in _JUDGING:
            shown = tint(shown, good=shown.startswith("accepted"))
        click.echo(f"{name:<{width}}  {shown}".rstrip())


def line(text: str) -> None:
    """Print a line of result, or several."""
    for part in text.split("\n"):
        click.echo(clean(part))


def warn(text: str) -> None:
    """Say on stderr what a result does not mean, so that whoever reads only the result's first line sees it, too."""
    complain(f"warning: {clean(text)}")


def many(count: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 parameter`, `7 parameters`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def format_size(size: int) -> str:
    """Bytes as people read them: `812 bytes`, `1.4 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return many(size, "byte")


def short(identifier: str) -> str:
    """An id as people read it."""
    return identifier[:SHORT_ID]


def note(text: str) -> None:
    """Say something on stderr that is no result; nothing where a machine reads, which finds it in the envelope."""
    if not click.get_current_context().params.get("as_json"):
        complain(f"note: {clean(text)}")


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def _print_json(
    *, ok: bool, command: str, data: Mapping[str, Any] | None, error: Mapping[str, Any] | None, changed: bool
) -> None:
    envelope = {
        "schema": SCHEMA,
        "ok": ok,
        "command": command,
        "version": __version__,
        "data": data,
        "error": error,
        "changed": changed,
    }
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(envelope, ensure_ascii=plain, sort_keys=True, default=str))
