"""The numbers against their definitions, and against other people's implementations."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.linalg import sqrtm

from rasura.evaluation.report.metrics import compute_frechet, compute_harmonic_mean, compute_wilson, measure_change


def features(n: int, width: int, seed: int) -> npt.NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    mixed: npt.NDArray[np.float64] = chance.normal(size=(n, width)) @ chance.normal(size=(width, width))
    return mixed + chance.normal(size=width)


def noise(seed: int, side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_solves_its_equation(pair: tuple[int, int]) -> None:
    """Wilson's bounds are where the share is 1.96 standard errors of the bound away."""
    right, n = pair
    low, high = compute_wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:
        error = 1.959963984540054 * math.sqrt(bound * (1 - bound) / n)
        assert abs(bound - right / n) == pytest.approx(error, rel=1e-6)


def test_the_interval_of_known_cases() -> None:
    assert compute_wilson(0, 16)[0] == 0.0
    assert compute_wilson(0, 16)[1] == pytest.approx(0.19361, abs=1e-5)
    assert compute_wilson(16, 16)[0] == pytest.approx(0.80639, abs=1e-5)
    assert compute_wilson(16, 16)[1] == 1.0
    assert compute_wilson(0, 0) == (0.0, 1.0)


def test_the_harmonic_mean_forgives_no_failure() -> None:
    assert compute_harmonic_mean([0.5, 1.0, 1.0]) == pytest.approx(0.75)
    assert compute_harmonic_mean([0.0, 1.0, 1.0]) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_the_frechet_distance_is_that_of_the_formula(seed: int) -> None:
    one, other = features(200, 12, seed), features(200, 12, seed + 50)
    found = compute_frechet(one, other)
    assert found is not None
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    gap = one.mean(axis=0) - other.mean(axis=0)
    expected = float(gap @ gap + np.trace(first + second - 2 * sqrtm(first @ second).real))
    assert found.distance == pytest.approx(expected, rel=1e-9)
    assert (found.n, found.width, found.regularised) == (200, 12, False)


def test_the_frechet_distance_of_equal_and_of_shifted_features() -> None:
    one = features(50, 6, 1)
    same, shifted = compute_frechet(one, one), compute_frechet(one, one + 2.0)
    assert same is not None
    assert shifted is not None
    assert same.distance == pytest.approx(0, abs=1e-9)
    assert shifted.distance == pytest.approx(6 * 4.0)


def test_few_pictures_are_regularised_and_one_has_no_distance() -> None:
    one, other = features(5, 40, 1), features(5, 40, 2)
    found, same = compute_frechet(one, other), compute_frechet(one, one)
    assert found is not None
    assert same is not None
    assert found.regularised
    assert found.distance > 1
    assert same.distance == pytest.approx(0, abs=1e-6 * found.distance)
    assert compute_frechet(one[:1], other[:1]) is None


def test_pictures_that_did_not_change_and_one_that_did() -> None:
    black, white = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16), "#ffffff")
    found = measure_change([black, noise(1), noise(2)], [white, noise(1), noise(2)])
    assert (found.n, found.identical) == (3, 2)
    assert found.change == pytest.approx(1 / 3)
    assert found.ssim == pytest.approx(2 / 3, abs=1e-3)


def test_noise_is_unlike_noise_and_one_level_is_almost_nothing() -> None:
    pixels = np.asarray(noise(1)).copy()
    pixels[0, 0, 0] ^= 1
    assert measure_change([noise(1)], [noise(2)]).ssim == pytest.approx(0, abs=0.1)
    nearly = measure_change([noise(1)], [Image.fromarray(pixels)])
    assert nearly.identical == 0
    assert nearly.ssim == pytest.approx(1, abs=1e-4)
    assert nearly.change == pytest.approx(1 / 255 / pixels.size)


def test_pictures_smaller_than_the_window_have_no_similarity() -> None:
    assert measure_change([noise(1, 5)], [noise(1, 5)]).ssim is None
