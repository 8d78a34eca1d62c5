"""Intervals that hold what they promise, and extrapolation to a distance known in closed form."""

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.metrics.frechet import sample_distance
from lisa_video.metrics.uncertainty import extrapolate, half_sample_interval

SHIFT = 0.5


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return sample_distance(first, second, 1)


def pair(random: np.random.Generator, count: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Two normal samples whose true distance is D SHIFT^2."""
    return random.normal(size=(count, dimension)), random.normal(SHIFT, size=(count, dimension))


def test_the_interval_holds_the_expected_value_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    pairs = [pair(random, 60, 4) for _ in range(150)]
    expected = np.mean([distance(*samples) for samples in pairs])
    inside = 0
    for first, second in pairs:
        value = distance(first, second)
        found = half_sample_interval(distance, first, second, value=value, draws=60, seed=1)
        inside += found.low < expected < found.high
        assert found.low < value < found.high
    assert 0.85 < inside / len(pairs) < 0.99


def test_more_clips_make_it_narrower() -> None:
    random = np.random.default_rng(2)
    widths = []
    for count in (50, 800):
        samples = pair(random, count, 4)
        found = half_sample_interval(distance, *samples, value=1.0, draws=100, seed=3)
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)
    with pytest.raises(UserError, match="at least 4 clips"):
        half_sample_interval(distance, samples[0], samples[1][:3], value=1.0, draws=1, seed=0)


def test_extrapolation_takes_the_bias_away() -> None:
    truth = 8 * SHIFT**2
    random = np.random.default_rng(4)
    samples = [pair(random, 240, 8) for _ in range(30)]
    plain = np.mean([distance(*both) for both in samples])
    limits = [extrapolate(distance, *both, seed=5) for both in samples]
    assert plain - truth > 0.08  # the bias is there
    assert abs(np.mean([found.limit for found in limits]) - truth) < 0.03
    assert np.mean([found.slope for found in limits]) > 0
    assert all(0 <= found.r_squared <= 1 for found in limits)
    assert limits[0].sizes[0] == 120 and limits[0].sizes[-1] == 240


def test_extrapolation_is_refused_where_its_law_does_not_hold() -> None:
    first, second = pair(np.random.default_rng(6), 100, 30)
    with pytest.raises(UserError, match="needs 120 clips on each side, there are 100"):
        extrapolate(distance, first, second, seed=0)
