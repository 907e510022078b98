"""`rasura probe`."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from rasura.commands._shared.command import command
from rasura.commands._shared.output import Result, fields, line, short, table

if TYPE_CHECKING:
    from rasura.patches.models.probe.trace import Trace, TracedLayer

_SAYS: Final = {
    "text": "text states as they are",
    "normed": "text states after a norm",
    "projected": "text after fixed layers",
    "fused": "the whole prompt, fused",
    "refined": "words mixed by attention",
    "pooled": "one pooled text a prompt",
    "stream": "text, picture and time",
    "picture": "no text alone",
}
_PATTERN: Final = 27
_COLUMNS: Final = 60


@command(None, "probe")
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
def probe(model: Path, registry_at: str | None) -> Result:
    """Find what of MODEL (a diffusers folder) reads text alone, by running a small random twin. Needs no registry.

    Of a single file, in which there is no configuration, the table of families says what its layers read.
    """
    from rasura.patches.models.probe.agreement import probe_model

    del registry_at
    if model.is_file():
        return _of_file(model)
    found, family = probe_model(model)
    data = {**found.to_json(), "trace": found.digest, "family": family}
    return Result(data, lambda: _print(found, family or "not in the table"))


def _of_file(file: Path) -> Result:
    from rasura.patches.models.probe.file_layers import describe_file

    found = describe_file(file)
    data = {"family": found.family, "native": [layer.to_json() for layer in found.layers]}

    def told() -> None:
        fields([("family", found.family)])
        _wrapped("not probed: a single file has no configuration; the table of families says what its layers read")
        line("")
        rows = [
            (_SAYS[each.reads], str(each.width), each.native.removesuffix(".weight") + _more(each.count))
            for each in found.layers
        ]
        table(("reads", "width", "layer"), rows)

    return Result(data, told)


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def _print(found: "Trace", family: str) -> None:
    fields([("class", found.kind), ("family", family), ("trace", short(found.digest))])
    _wrapped(f"probed: {found.how}")
    line("")
    if not found.entrances:
        line("no linear layer reads text alone: nothing can be erased")
    table(("reads", "width", "layer"), [_row(layer) for layer in found.alone])
    ways = {layer.through: layer for layer in found.entrances if layer.through}
    for through, layer in ways.items():
        _wrapped(f"{_short(layer.pattern)} reads through {', then '.join(name.partition('.')[2] for name in through)}")
    inputs = {layer.pattern: layer.input for layer in found.entrances if layer.input}
    if len(set(inputs.values())) > 1:
        line("")
        table(("layer", "of"), [(_short(pattern), _short(f".{name}")) for pattern, name in inputs.items()])
    if found.lookalikes:
        line("")
        line("look like it, and do not read text alone:")
        table(("reads", "width", "layer"), [_row(layer) for layer in found.lookalikes])


def _row(layer: "TracedLayer") -> tuple[str, str, str]:
    return (_SAYS[layer.reads], str(layer.width), _short(layer.pattern))


def _short(pattern: str) -> str:
    """The name without its component, its beginning left out where it is long."""
    name = pattern.partition(".")[2]
    return name if len(name) <= _PATTERN else f"…{name[-_PATTERN + 1 :]}"


def _wrapped(text: str) -> None:
    for part in textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_on_hyphens=False):
        line(part)
