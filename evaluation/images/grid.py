"""Pictures side by side, with labels that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

CELL: Final = 128  # pixels; a 64-pixel picture is shown at twice its size
GAP: Final = 6
LEFT: Final = 190
TOP: Final = 46
LINE: Final = 15
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
    """Lay pictures out with a title, column heads, row labels and captions."""
    from PIL import Image as Images
    from PIL import ImageDraw, ImageFont

    step_x, step_y = CELL + GAP, CELL + LINE + GAP
    sheet = Images.new("RGB", (LEFT + step_x * len(columns), TOP + step_y * len(rows) + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    pen.text((GAP, GAP), title, INK, font=ImageFont.load_default(size=15))
    for x, head in enumerate(columns):
        pen.text((LEFT + x * step_x, TOP - LINE - 3), head, INK, font=font)
    for y, row in enumerate(rows):
        pen.multiline_text((GAP, TOP + y * step_y + GAP), row.label, INK, font=font, spacing=3)
        for x, (picture, caption) in enumerate(zip(row.pictures, row.captions, strict=True)):
            place = (LEFT + x * step_x, TOP + y * step_y)
            sheet.paste(picture.resize((CELL, CELL), Images.Resampling.NEAREST), place)
            pen.text((place[0], place[1] + CELL + 1), caption, SOFT, font=font)
    return sheet


def save_grid(path: Path, sheet: Image) -> None:
    """Write a PNG through a temporary file, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    sheet.save(part, format="PNG", optimize=True)
    part.replace(path)
