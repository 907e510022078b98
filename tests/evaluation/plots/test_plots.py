"""The figure of interference: whatever the numbers, a picture that is whole, and the same one every time."""

import math
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rasura.evaluation.plots.clustering import order_by_disturbance
from rasura.evaluation.plots.figure import MOST, InterferenceData, draw_interference
from rasura.evaluation.plots.heatmap import NAMES, coarsen, number, shorten_name, spread, worst_rows
from rasura.evaluation.plots.panels import count_over, list_worst_pairs
from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.errors import InputError, RegistryError

LIMIT = 0.05


def data(count: int, limit: float = LIMIT, **more: object) -> InterferenceData:
    rng = np.random.default_rng(count)
    matrix = 10 ** rng.normal(-3, 0.5, (count, count))
    np.fill_diagonal(matrix, 0.0)
    cosines = np.abs(rng.normal(0, 0.1, (count, count)))
    filled = {"capacity": Capacity(384, 20, 100, count), "cosines": (cosines + cosines.T) / 2} | more
    return InterferenceData(tuple(f"concept {i}" for i in range(count)), matrix, limit, **filled)  # type: ignore[arg-type]


def texts(path: Path) -> str:
    """Every text of an SVG: matplotlib writes it as a comment before its outlines."""
    return path.read_text()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    draw_interference(data(6), first)
    draw_interference(data(6), second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first.name, second.name])


def test_a_person_s_own_settings_change_nothing(tmp_path: Path) -> None:
    import matplotlib as mpl

    draw_interference(data(4), tmp_path / "plain.svg")
    with mpl.rc_context():
        mpl.rc("font", size=20)
        mpl.rc("svg", hashsalt="theirs")
        draw_interference(data(4), tmp_path / "theirs.svg")
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "theirs.svg").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 5, NAMES, NAMES + 1, 210])
def test_any_number_of_patches_is_drawn(tmp_path: Path, count: int) -> None:
    path = tmp_path / "figure.png"
    draw_interference(data(count), path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(set(picture.convert("L").tobytes())) > 20


@pytest.mark.parametrize("limit", [math.inf, 0.0, 1e-9, 3.0])
@pytest.mark.parametrize("fill", ["zeros", "nan", "infinite", "huge", "tiny"])
def test_odd_numbers_are_drawn(tmp_path: Path, limit: float, fill: str) -> None:
    values = {"zeros": 0.0, "nan": math.nan, "infinite": math.inf, "huge": 1e200, "tiny": 1e-200}
    matrix = np.full((3, 3), values[fill])
    odd = InterferenceData(("$x_", "日本語", "a < b & c%"), matrix, limit, Capacity(384, 200, 184, 0), np.zeros(0))
    draw_interference(odd, tmp_path / "odd.svg")
    ET.parse(tmp_path / "odd.svg")


def test_the_names_stand_in_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "named.svg"
    draw_interference(data(3), path)
    assert all(f"<!-- concept {i} -->" in texts(path) for i in range(3))
    assert "<!-- limit 0.05 -->" in texts(path)
    assert "<!-- free 261 -->" in texts(path)


def test_what_is_not_given_is_left_out(tmp_path: Path) -> None:
    draw_interference(data(3, capacity=None, cosines=None), tmp_path / "bare.svg")
    assert "principal" not in texts(tmp_path / "bare.svg")
    assert "dimensions" not in texts(tmp_path / "bare.svg")


def test_the_input_is_left_as_it_was(tmp_path: Path) -> None:
    given_data = data(5)
    before = given_data.matrix.copy()
    draw_interference(given_data, tmp_path / "a.png")
    assert np.array_equal(before, given_data.matrix)


@pytest.mark.parametrize("name", ["figure.pdf", "figure", "figure.jpg", ".svg"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        draw_interference(data(3), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder") as error:
        draw_interference(data(3), tmp_path / "none" / "figure.png")
    assert error.value.hint.startswith("mkdir -p ")


def test_a_path_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(RegistryError, match="cannot write"):
        draw_interference(data(3), tmp_path / "taken.png")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.png"]


@pytest.mark.parametrize("module", ["matplotlib.figure", "scipy.cluster.hierarchy"])
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match="matplotlib and scipy") as error:
        draw_interference(data(3), tmp_path / "figure.png")
    assert error.value.hint == "pip install 'rasura[plot]'"


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wrong = InterferenceData(("a", "b"), np.zeros((2, 3)), LIMIT)
    with pytest.raises(InputError, match="2 × 2"):
        draw_interference(wrong, tmp_path / "figure.png")
    none = InterferenceData((), np.zeros((0, 0)), LIMIT)
    with pytest.raises(InputError, match=f"1 to {MOST}"):
        draw_interference(none, tmp_path / "figure.png")


def test_patches_that_disturb_each_other_stand_together() -> None:
    matrix = np.full((6, 6), 1e-4)
    matrix[0, 4] = matrix[4, 0] = matrix[2, 5] = 0.8
    found = order_by_disturbance(matrix, LIMIT)
    places = {patch: place for place, patch in enumerate(found.order)}
    assert sorted(found.order) == list(range(6))
    assert abs(places[0] - places[4]) == 1
    assert abs(places[2] - places[5]) == 1
    assert sorted((first, last) for first, last in found.blocks) == sorted(
        (min(places[a], places[b]), max(places[a], places[b])) for a, b in ((0, 4), (2, 5))
    )
    assert found.values[places[2], places[5]] == 0.8


@pytest.mark.parametrize(("count", "most"), [(4, 4), (5, 4), (9, 4), (11, 3)])
def test_a_single_bad_pair_is_seen_whatever_the_scale(count: int, most: int) -> None:
    for p in range(count):
        for q in range(count):
            matrix = np.full((count, count), 1e-4)
            np.fill_diagonal(matrix, np.nan)
            matrix[p, q] = 0.9
            found = coarsen(matrix, most)
            step = -(-count // most)
            assert found.shape == (-(-count // step),) * 2
            assert found[p // step, q // step] == 0.9
            assert int((found == 0.9).sum()) == 1


def test_squares_of_pairs_without_a_number_have_none() -> None:
    assert np.isnan(coarsen(np.full((7, 7), np.nan), 3)).all()


def test_worst_pairs_and_rows() -> None:
    matrix = np.array([[9.0, 0.2, 0.0], [0.01, 9.0, math.inf], [math.nan, 0.3, 9.0]])
    assert list_worst_pairs(matrix, 3) == [(1, 2, math.inf), (2, 1, 0.3), (0, 1, 0.2)]
    assert count_over(matrix, LIMIT) == 3
    assert worst_rows(matrix - np.diag([9.0] * 3), LIMIT, 2) == [1, 2]


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=20).map(sorted))
def test_labels_lie_apart(places: list[float]) -> None:
    found = spread(places, 4.0, 100.0)
    assert all(b - a >= 4.0 - 1e-9 for a, b in pairwise(found))
    assert all(place <= 100.0 for place in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1.00"), (0.0123, "0.012"), (3e-5, "3e-5"), (math.inf, "∞"), (math.nan, "–"), (1e200, "1e200")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_long_names_keep_their_ends() -> None:
    assert shorten_name("a painting in the style of one") == "a painting…le of one"
    assert len(shorten_name("x" * 100)) == 20
    assert shorten_name("cat") == "cat"
