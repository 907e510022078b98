"""Measured ratios against dense arithmetic, prompt by prompt."""

from dataclasses import replace

import pytest
import torch
from support.values import factories
from support.values.factories import World

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.erasers.closed_form.null_space import NullSpace, erase
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.erasers.interface import Erasure
from rasura.patches.solving.measure import Measured, Measurer, Reference

WORLD = World()
DOG = WORLD.columns("dog", 1, 4)
HELD_OUT = factories.clip_like(1002, 8, WORLD.width)
BASIS = WORLD.basis()
W = torch.cat([weight.double() for weight in WORLD.weights.values()])


@pytest.fixture(scope="module")
def erasure() -> Erasure:
    return erase(WORLD.weights, [DOG], BASIS, NullSpace(rank_limit=3))[0]


@pytest.fixture(scope="module")
def measured(erasure: Erasure) -> Measured:
    return Measurer(WORLD.weights, WORLD.reference).measure(erasure, DOG, BASIS)


def dense(erasure: Erasure) -> torch.Tensor:
    return torch.cat([erasure.increments[name].dense() for name in WORLD.weights])


def test_ratios_are_those_of_dense_arithmetic(erasure: Erasure, measured: Measured) -> None:
    delta = dense(erasure)
    wanted = W @ (DOG.anchors - DOG.targets)
    null = WORLD.reference.invariants.T
    expected = {
        "residual": (delta @ DOG.targets - wanted).norm() / wanted.norm(),
        "effect": (delta @ DOG.targets).norm() / (W @ DOG.targets).norm(),
        "held_out": (delta @ HELD_OUT).norm() / (W @ HELD_OUT).norm(),
        "base_targets": (W @ DOG.targets).norm(),
        "base_protected": (W @ (BASIS.rows.T * BASIS.energy.sqrt())).norm(),
    }
    for name, value in expected.items():
        assert getattr(measured, name) == pytest.approx(float(value), rel=1e-9)
    kept = WORLD.retained_columns
    # A moment is exact to 1e-16, so a leak, its root, to 1e-8 of what is there.
    assert measured.null == pytest.approx(float((delta @ null).norm() / (W @ null).norm()), abs=1e-8)
    assert measured.retained == pytest.approx(float((delta @ kept).norm() / (W @ kept).norm()), abs=1e-8)


def test_the_leak_of_the_grid_is_small_and_not_hidden(measured: Measured) -> None:
    assert measured.retained is not None
    assert measured.held_out is not None
    for leak in (measured.null, measured.retained):
        assert 1e-9 < leak < 1e-6
    assert measured.held_out > 1e-3


def test_counts(measured: Measured) -> None:
    assert (measured.rank, measured.protected, measured.width) == (3, BASIS.rank, WORLD.width)


def test_over_no_prompts_nothing_is_measured(erasure: Erasure) -> None:
    empty = Reference(WORLD.reference.invariants, Moment(WORLD.width), Moment(WORLD.width))
    found = Measurer(WORLD.weights, empty).measure(erasure, DOG, BASIS)
    assert (found.retained, found.held_out) == (None, None)
    assert not {"leak_retained", "leak_held_out"} & found.decimals(free=1.0, guarded=0).keys()


def test_an_anchor_that_is_the_target_has_no_residual(erasure: Erasure) -> None:
    same = Columns("dog", DOG.targets, DOG.targets)
    assert Measurer(WORLD.weights, WORLD.reference).measure(erasure, same, BASIS).residual == 0.0


def test_no_increment_leaves_everything(erasure: Erasure) -> None:
    nothing = {name: Increment(i.A, torch.zeros_like(i.B)) for name, i in erasure.increments.items()}
    found = Measurer(WORLD.weights, WORLD.reference).measure(replace(erasure, increments=nothing), DOG, BASIS)
    assert (found.residual, found.effect, found.null, found.retained, found.held_out) == (1.0, 0.0, 0.0, 0.0, 0.0)


def test_decimals_have_four_digits_and_read_back(measured: Measured) -> None:
    found = measured.decimals(free=0.1234, guarded=2)
    assert found["free"] == "1.234e-01"
    assert (found["rank"], found["guarded"], found["width"]) == ("3", "2", "96")
    assert float(found["effect"]) == pytest.approx(measured.effect, rel=1e-3)
    assert set(found) == {
        *("residual", "effect", "leak_null", "leak_retained", "leak_held_out", "base_targets", "base_protected"),
        *("free", "rank", "protected", "guarded", "width"),
    }


@pytest.mark.parametrize("width", [300, 2300])
def test_compressed_columns_stand_for_all(width: int) -> None:
    """Narrow or wide, and however few there are: ‖X·C1 − Y·C*‖ stays."""
    base = factories.normal(1, 2 * width, 5) @ factories.normal(2, 5, 40)
    columns = Columns("dog", base[:width], base[width:])
    found = compress_columns(columns, 1e-6)
    assert found.targets.shape == found.anchors.shape == (width, 5)
    X, Y = factories.normal(3, 7, width), factories.normal(4, 7, width)
    full = (X @ columns.targets - Y @ columns.anchors).norm()
    assert float((X @ found.targets - Y @ found.anchors).norm() / full) == pytest.approx(1, rel=1e-9)
