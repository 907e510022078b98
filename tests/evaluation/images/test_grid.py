"""Pictures side by side: nothing of a title is cut off."""

import numpy as np
import pytest
from PIL import Image

from rasura.evaluation.images.grid import INK, PAPER, Row, draw_grid, wrap_text

PICTURE = Image.new("RGB", (64, 64), PAPER)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one", ["one"]),
        ("one two three", ["one two", "three"]),
        ("", [""]),
        ("a abcdefghijklm b", ["a", "abcdefgh", "ijklm b"]),
        ("abcdefghijklmnopq", ["abcdefgh", "ijklmnop", "q"]),
    ],
)
def test_text_is_broken_between_words(text: str, lines: list[str]) -> None:
    assert wrap_text(text, lambda part: len(part) <= 8) == lines


def test_a_long_title_takes_more_lines_and_reaches_no_edge() -> None:
    short = draw_grid("Erased: dog", ["dog"], [Row("base", [PICTURE], ["dog"])])
    long = draw_grid("Erased: " + "'a very long concept', " * 9, ["dog"], [Row("base", [PICTURE], ["dog"])])
    assert long.width == short.width
    assert long.height > short.height + 3 * 15
    assert long.size[1] - short.size[1] == (long.size[1] - short.size[1]) // 19 * 19
    margin = np.asarray(long)[:, -4:]
    assert (margin == np.array(Image.new("RGB", (1, 1), PAPER).getpixel((0, 0)))).all()
    dark = np.asarray(long).sum(axis=2) < 3 * int(INK[1:3], 16) + 200
    assert dark[:60].any()
