"""Lists of prompts as benchmarks publish them: tables that say what to draw, not what a judge should see.

i2p   Inappropriate Image Prompts (Schramowski et al. 2023, arXiv 2211.05105): prompt, categories, sd_seed, …
csv   prompt, and where there is one `evaluation_seed`, `seed` or `sd_seed`

The person says what every picture of the list is expected to show, and to which group the list belongs. Prompts longer
than the text encoder reads are drawn as far as it reads, as the benchmarks' own pipelines do. Columns that are not
named here are not read; guidance is one for all pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import DIRECT, PARAPHRASE, Question
from rasura.evaluation.report.prompt_file import AXES, GROUPS, MAX_SEED, read_prompt_rows
from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError

Format: TypeAlias = Literal["i2p", "csv"]

_HINT: Final = "rasura evaluate --protocol csv --prompts FILE.csv --expect LABEL"
_SEEDS: Final = {"i2p": ("sd_seed",), "csv": ("evaluation_seed", "seed", "sd_seed")}
_NEEDED: Final = {"i2p": ("prompt", "categories", "sd_seed"), "csv": ("prompt",)}
_LONGEST_KIND: Final = 40
_SEVERAL: Final = "several"


@dataclass(frozen=True, slots=True)
class Protocol:
    """How to read a list, and what every picture of it is asked for.

    Attributes:
        format: `i2p` or `csv`.
        expect: what a judge should say of each picture: a label, or `object=`, `style=` or `label=` and a label.
        group: `forget`, `retain` or `held_out`.
    """

    format: Format
    expect: str
    group: str = GROUPS[0]

    @property
    def wanted(self) -> Mapping[str, str]:
        """The label by its axis."""
        axis, equals, label = self.expect.partition("=")
        return {axis: label} if equals and axis in AXES else {"label": self.expect}


def read_protocol(path: Path, protocol: Protocol) -> tuple[Question, ...]:
    """The questions of a list, in its order; I2P's categories are their kinds.

    Raises:
        NotFoundError: no such file.
        InputError: a missing column, no row, or a bad one; the message names its line.
    """
    if protocol.group not in GROUPS:
        raise InputError(f"group: expected one of {', '.join(GROUPS)}, got {show(protocol.group)}")
    if "" in protocol.wanted.values():
        raise InputError("expected what a judge should call these pictures, got nothing", hint=_HINT)
    rows = read_prompt_rows(path)
    missing = [name for name in _NEEDED[protocol.format] if name not in rows.columns]
    if missing:
        raise InputError(
            f"{path.name}, line 1: expected the column {missing[0]}, got "
            f"{', '.join(map(show, rows.columns[:20])) or 'none'}",
            hint=_HINT,
        )
    seeds = [name for name in _SEEDS[protocol.format] if name in rows.columns]
    if len(seeds) > 1:
        raise InputError(f"{path.name}, line 1: expected one column of seeds, got {' and '.join(seeds)}")
    found = []
    for index, (line, row) in enumerate(rows.items):
        where = f"{path.name}, line {line}"
        prompt = _cell(row, "prompt", where).strip()
        if not prompt:
            raise InputError(f"{where}: expected a prompt, got blanks")
        seed = _parse_seed(_cell(row, seeds[0], where), where) if seeds else index
        kind = _name_kind(_cell(row, "categories", where)) if protocol.format == "i2p" else DIRECT
        found.append(Question(protocol.group, Shot(prompt, seed), protocol.wanted, kind))
    if not found:
        raise InputError(f"{path}: expected a prompt a row, got no row")
    return tuple(found)


def _cell(row: str | Mapping[str, object], name: str, where: str) -> str:
    """A text, or a number as its text."""
    value = None if isinstance(row, str) else row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: {name}: expected a text, got {show(value)}", hint=_HINT)
    return str(value)


def _parse_seed(text: str, where: str) -> int:
    """Digits, or digits and `.0`, as tables write them that were read with gaps."""
    match = re.fullmatch(r"([0-9]{1,16})(?:\.0)?", text.strip())
    if match is None or int(match[1]) > MAX_SEED:
        raise InputError(f"{where}: seed: expected an integer from 0 to {MAX_SEED}, got {show(text)}")
    return int(match[1])


def _name_kind(categories: str) -> str:
    """A kind for one category (`self-harm`), or for several together."""
    names = [re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in categories.split(",")]
    names = [name[:_LONGEST_KIND] for name in names if name and name != PARAPHRASE]
    return _SEVERAL if len(names) > 1 else (names or [DIRECT])[0]
