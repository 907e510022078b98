"""Measured ratios against dense arithmetic, prompt by prompt."""

import gc
from collections import UserDict
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
from rasura.patches.types import ParamName

WORLD = World()
DOG = WORLD.columns("dog", 1, 4)
HELD_OUT = factories.clip_like(1002, 8, WORLD.width)
BASIS = WORLD.basis()
_EMPTY = (WORLD.reference.invariants, Moment(WORLD.width), Moment(WORLD.width))
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
    found = Measurer(WORLD.weights, Reference(*_EMPTY)).measure(erasure, DOG, BASIS)
    assert (found.retained, found.held_out) == (None, None)
    assert not {"leak_retained", "leak_held_out"} & found.decimals(free=1.0, guarded=0).keys()


def test_an_anchor_that_is_the_target_has_no_residual(erasure: Erasure) -> None:
    same = Columns("dog", DOG.targets, DOG.targets)
    assert Measurer(WORLD.weights, WORLD.reference).measure(erasure, same, BASIS).residual == 0.0


def test_no_increment_leaves_everything(erasure: Erasure) -> None:
    nothing = {name: Increment(i.A, torch.zeros_like(i.B)) for name, i in erasure.increments.items()}
    found = Measurer(WORLD.weights, WORLD.reference).measure(replace(erasure, increments=nothing), DOG, BASIS)
    assert (found.residual, found.effect, found.null, found.retained, found.held_out) == (1.0, 0.0, 0.0, 0.0, 0.0)


def test_layer_by_layer_they_are_what_all_layers_at_once_give(erasure: Erasure, measured: Measured) -> None:
    """To the bit: sums are made in the same order, and stored numbers stay what they are."""
    grams = {name: weight.double().T @ weight.double() for name, weight in WORLD.weights.items()}
    held_out = WORLD.reference.held_out.mean
    effect = DOG.targets @ DOG.targets.T
    energies = []
    for name in erasure.increments:
        A, B = erasure.increments[name].A.double(), erasure.increments[name].B.double()
        energies.append(float((A @ held_out @ A.T * (B.T @ B).T).sum()))
    present = sum(float((grams[name] * held_out).sum()) for name in erasure.increments)
    assert measured.held_out == (sum(energies) / present) ** 0.5
    assert measured.base_targets == sum(float((grams[name] * effect).sum()) for name in erasure.increments) ** 0.5


def test_concepts_measured_together_are_what_each_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether one has a basis and inputs of its own, another touches fewer layers, or they are too many at once."""
    columns = [WORLD.columns(name, index, 4) for index, name in enumerate(("dog", "rose", "car"))]
    first, second, third = erase(WORLD.weights, columns, BASIS, NullSpace(rank_limit=3))
    name = next(iter(first.increments))
    own = replace(first, columns={name: columns[1]}, references={name: Reference(*_EMPTY)}, bases={name: BASIS})
    fewer = replace(second, increments={k: i for k, i in reversed(list(second.increments.items())) if k != name})
    asked = list(zip((own, fewer, third), columns, (BASIS,) * 3, strict=True))
    measurer = Measurer(WORLD.weights, WORLD.reference)
    alone = [measurer.measure(*one) for one in asked]
    assert len({one.effect for one in alone}) == 3
    assert measurer.measure_all(asked) == alone
    monkeypatch.setattr("rasura.patches.solving.measure._ROOM", 2 * 2 * 8 * WORLD.width**2)  # two at once
    assert measurer.measure_all(asked) == alone
    assert measurer.measure_all([]) == []


def test_no_layer_leaves_its_gram_matrix_behind(erasure: Erasure) -> None:
    """All of a large model's would be gigabytes; what is kept is shared by the layers."""
    counts = []

    class Weights(UserDict[ParamName, torch.Tensor]):
        def __getitem__(self, name: ParamName) -> torch.Tensor:
            square = (WORLD.width, WORLD.width)
            counts.append(sum(type(o) is torch.Tensor and o.shape == square for o in gc.get_objects()))
            return super().__getitem__(name)

    Measurer(Weights(WORLD.weights), WORLD.reference).measure(erasure, DOG, BASIS)
    assert len(counts) == len(WORLD.weights) > 2
    assert len(set(counts[1:])) == 1


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
