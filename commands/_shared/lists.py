"""Options that name lists, and what is said of a list that was read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.output import many, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rasura.patches.erasers.request import EraseRequest
    from rasura.patches.prompts.retain_set import RetainSet

_BRIEF: Final = 40  # characters of a text
TRUNCATE = click.option("--truncate", is_flag=True, help="Cut texts that are longer than the model reads.")
_PATH: Final = click.Path(path_type=Path)
RETAIN = click.option(
    "--retain", type=_PATH, metavar="FILE[:COLUMN]", help="What to keep; docs/lists.md says in which formats."
)
RETAIN_COLUMN = click.option("--retain-column", metavar="NAME", help="The same as a column behind the file's name.")
HELD_OUT = click.option("--held-out", type=_PATH, metavar="FILE[:COLUMN]", help="Where leak is only measured.")


def say_lists(request: "EraseRequest") -> "Iterator[dict[str, Any]]":
    """Say what was read, before it is solved; the same for machines."""
    for name, words in (("retain", request.retain), ("held out", request.held_out_from)):
        if words is not None:
            say_list(name, words)
            yield encode_list(name, words)


def encode_list(name: str, words: "RetainSet") -> dict[str, Any]:
    """What was read of a list, for machines."""
    read = words.origin
    return {
        "list": name,
        "file": words.source,
        "format": read.format if read else None,
        "columns": list(read.columns) if read else [],
        "whole_prompts": words.whole,
        "rows": read.rows if read else len(words.concepts),
        "comments": read.comments if read else 0,
        "blank": read.blank if read else 0,
        "kept": len(words.concepts),
        "repeated": words.repeated,
        "removed": len(words.removed),
        "cut": words.cut,
        "first": words.concepts[0] if words.concepts else None,
        "last": words.concepts[-1] if words.concepts else None,
    }


def say_list(name: str, words: "RetainSet") -> None:
    """The same for people, on stderr: one line."""
    said = encode_list(name, words)
    form = f" ({said['format']})" if said["format"] else ""
    columns = f", {'column' if len(said['columns']) == 1 else 'columns'} {', '.join(said['columns'])}"
    less = [
        f"{said[key]} {text}"
        for key, text in (
            ("comments", "comments"),
            ("blank", "empty"),
            ("repeated", "repeated"),
            ("removed", "removed because they name a target"),
            ("cut", "cut to what the model reads"),
        )
        if said[key]
    ]
    kind = "whole prompt" if words.whole else "concept"
    parts = [f"{name}: {words.source}{form}{columns if said['columns'] else ''}: {many(said['rows'], 'row')}"]
    parts += [f"{many(said['kept'], kind)} kept", *less]
    note(f"{', '.join(parts)}; first {_brief(words.concepts[0])}, last {_brief(words.concepts[-1])}")


def _brief(text: str) -> str:
    return repr(text if len(text) <= _BRIEF else f"{text[:_BRIEF]}…")
