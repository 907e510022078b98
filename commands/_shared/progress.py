"""How far long work is, on stderr: a bar for whoever watches, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rasura.commands._shared.output import clean, complain

__all__ = ["progress", "show_step"]


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Report long work on stderr: a bar on a terminal, a line a stage elsewhere; nothing for the first second."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            name, _, note = stage.partition("\t")
            if name not in tasks:
                tasks[name] = bar.add_task("", total=total)
            shown = escape(clean(f"{name}  {note}".rstrip()))
            bar.update(tasks[name], completed=done, total=total, description=shown)

        yield update


@contextmanager
def show_step(stage: str) -> Iterator[None]:
    """The same for work that is one step, whose length nobody knows."""
    with progress() as tell:
        tell(stage, 0, 1)
        yield
        tell(stage, 1, 1)


class _Lines:
    """Progress where nobody watches: one line a stage, once it has taken more than a second."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._said: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        stage = stage.partition("\t")[0]
        if stage not in self._said and time.monotonic() - self._started > 1.0 and done < total:
            self._said.add(stage)
            complain(f"{clean(stage)}…")
