"""Pictures side by side, with labels that a person can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image as Images
from PIL import ImageDraw, ImageFont
from PIL.Image import Image

CELL: Final = 128  # pixels; a 64-pixel picture is shown at twice its size
GAP: Final = 6
LEFT: Final = 190
TOP: Final = 46
LINE: Final = 15
_TITLE_LINE: Final = 19
PAPER: Final = "#ffffff"
INK: Final = "#202020"
SOFT: Final = "#707070"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a grid.

    Attributes:
        label: what the row shows; lines are split at newlines.
        pictures: one a column.
        captions: below each picture, such as what a classifier takes it for.
    """

    label: str
    pictures: Sequence[Image]
    captions: Sequence[str]


def draw_grid(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Image:
    """Lay pictures out with a title, column heads, row labels and captions; a long title takes more lines."""
    step_x, step_y = CELL + GAP, CELL + LINE + GAP
    font, large = ImageFont.load_default(size=12), ImageFont.load_default(size=15)
    width = LEFT + step_x * len(columns)
    lines = wrap_text(title, lambda text: large.getlength(text) <= width - 2 * GAP)
    top = TOP + (len(lines) - 1) * _TITLE_LINE
    sheet = Images.new("RGB", (width, top + step_y * len(rows) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for at, line in enumerate(lines):
        pen.text((GAP, GAP + at * _TITLE_LINE), line, INK, font=large)
    for x, head in enumerate(columns):
        pen.text((LEFT + x * step_x, top - LINE - 3), head, INK, font=font)
    for y, row in enumerate(rows):
        pen.multiline_text((GAP, top + y * step_y + GAP), row.label, INK, font=font, spacing=3)
        for x, (picture, caption) in enumerate(zip(row.pictures, row.captions, strict=True)):
            place = (LEFT + x * step_x, top + y * step_y)
            sheet.paste(picture.resize((CELL, CELL), Images.Resampling.NEAREST), place)
            pen.text((place[0], place[1] + CELL + 1), caption, SOFT, font=font)
    return sheet


def wrap_text(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in lines that fit, broken between words; a word that is too long for a line is broken, too."""
    lines = [""]
    for word in text.split():
        rest = word
        if lines[-1] and not fits(f"{lines[-1]} {rest}"):
            lines.append("")
        while not fits(rest) and len(rest) > 1:
            part = next((rest[:size] for size in range(len(rest) - 1, 0, -1) if fits(rest[:size])), rest[:1])
            lines[-1:] = [part, ""]
            rest = rest[len(part) :]
        lines[-1] = f"{lines[-1]} {rest}".strip()
    return lines


def save_grid(path: Path, sheet: Image) -> None:
    """Write a PNG through a temporary file, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    sheet.save(part, format="PNG", optimize=True)
    part.replace(path)
