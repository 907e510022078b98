"""How well concepts are told apart: what the mathematics says of orthogonal, close and dependent ones."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.values.factories import World

from rasura.patches.solving.conditioning import REFUSE, WARN, measure_conditioning, measure_conditioning_of

WIDTH = 24
ANGLES = st.floats(0.01, math.pi / 2)


def frame(seed: int) -> torch.Tensor:
    """A random orthonormal frame [d, d]."""
    found: torch.Tensor = torch.linalg.qr(
        torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )[0]
    return found


def at(rows: torch.Tensor, angle: float, first: int = 0) -> torch.Tensor:
    """A unit vector [1, d] at an angle to rows[first], in a plane with the next."""
    return (math.cos(angle) * rows[first] + math.sin(angle) * rows[first + 1])[None]


@given(st.integers(0, 1000), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_orthogonal_concepts_have_condition_one(seed: int, sizes: list[float]) -> None:
    rows = frame(seed)
    found = measure_conditioning({str(i): size * rows[2 * i : 2 * i + 2] for i, size in enumerate(sizes)})
    assert found.condition == pytest.approx(1, abs=1e-9)
    assert found.groups == ()
    assert list(found.left.values()) == pytest.approx([1.0] * len(sizes))


@given(st.integers(0, 1000), ANGLES, st.floats(1e-3, 1e3))
def test_a_pair_at_an_angle(seed: int, angle: float, size: float) -> None:
    rows = frame(seed)
    found = measure_conditioning({"one": rows[:1], "other": size * at(rows, angle)})
    expected = (1 + math.cos(angle)) / (1 - math.cos(angle))
    assert found.condition == pytest.approx(expected, rel=1e-6)
    assert list(found.left.values()) == pytest.approx([math.sin(angle) ** 2] * 2, abs=1e-9)
    assert [group.concepts for group in found.groups] == ([("one", "other")] if expected > WARN else [])


@given(st.integers(0, 1000))
def test_two_pairs_are_two_groups(seed: int) -> None:
    """Also where both are equally close, and any mixture of their eigenvectors would do."""
    rows = frame(seed)
    close = {"cat": rows[:1], "dog": rows[4:5], "kitten": at(rows, 0.05), "puppy": at(rows, 0.05, 4), "car": rows[8:9]}
    found = measure_conditioning(close)
    assert sorted(group.concepts for group in found.groups) == [("cat", "kitten"), ("dog", "puppy")]
    assert found.left["car"] == pytest.approx(1)


def test_three_in_one_plane_are_one_group() -> None:
    rows = frame(1)
    found = measure_conditioning({str(i): at(rows, i * math.pi / 3) for i in range(3)})
    assert found.condition == math.inf > REFUSE
    assert [group.concepts for group in found.groups] == [("0", "1", "2")]
    assert max(found.left.values()) < 1e-9
    assert "erase 0, 1, 2 as one concept" in found.groups[0].suggestion


def test_one_concept_is_well_conditioned() -> None:
    found = measure_conditioning({"dog": frame(2)[:3]})
    assert found.condition == pytest.approx(1)
    assert (found.groups, found.left) == ((), {"dog": 1.0})


def test_of_patches_only_what_is_free_counts() -> None:
    world = World()
    dog, cat = world.erase(world.columns("dog", 1), world.columns("cat", 2))
    found = measure_conditioning_of([dog, cat])
    U = dog.tensors.protected
    one, other = ((p.tensors.targets - (p.tensors.targets @ U.T) @ U)[0] for p in (dog, cat))
    cosine = abs(float(one @ other) / float(one.norm() * other.norm()))
    assert found.condition == pytest.approx((1 + cosine) / (1 - cosine))
