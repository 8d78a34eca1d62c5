"""The Fréchet distance against closed forms, and against scipy's matrix root."""

import math

import numpy as np
import pytest
import scipy.linalg

from lisa_video.metrics.frechet import frechet_distance, sample_distance

ZERO = np.zeros(2)
FIRST = np.array([[2.0, 1.0], [1.0, 2.0]])
U, V = np.array([1.0, 2.0, 3.0]), np.array([-2.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((np.zeros(1), np.eye(1)), (np.full(1, 3.0), np.full((1, 1), 4.0)), 10),
        ((ZERO, FIRST), (ZERO, np.array([[2.0, -1.0], [-1.0, 2.0]])), 8 - 4 * math.sqrt(3)),
        ((ZERO, FIRST), (ZERO, np.diag([3.0, 1.0])), 8 - 2 * math.sqrt(14)),
        (
            (np.zeros(3), np.outer(U, U)),
            (np.zeros(3), np.outer(V, V)),
            U @ U + V @ V - 2 * abs(U @ V),
        ),
    ],
)
def test_closed_forms(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], expected: float
) -> None:
    assert frechet_distance(*first, *second) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(*second, *first) == pytest.approx(expected, abs=1e-9)


def samples(count: int, dimension: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dimension, dimension))
    return random.normal(size=(count, dimension)) @ mixing + random.normal(size=dimension)


def by_sqrtm(first: np.ndarray, second: np.ndarray, ddof: int) -> float:
    covariances = [np.cov(sample, rowvar=False, ddof=ddof) for sample in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    apart = first.mean(0) - second.mean(0)
    return float(apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root).real)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("counts", [(60, 60), (60, 35), (12, 60), (12, 15)])
def test_samples_of_any_size_agree_with_sqrtm(counts: tuple[int, int], ddof: int) -> None:
    first, second = samples(counts[0], 20, 0), samples(counts[1], 20, 1)
    expected = by_sqrtm(first, second, ddof)
    # sqrtm itself loses half of its digits where a product is singular.
    tolerance = 1e-10 if min(counts) > 20 else 1e-4
    assert sample_distance(first, second, ddof) == pytest.approx(expected, rel=tolerance)
    covariances = [np.cov(sample, rowvar=False, ddof=ddof) for sample in (first, second)]
    gaussians = frechet_distance(first.mean(0), covariances[0], second.mean(0), covariances[1])
    assert gaussians == pytest.approx(sample_distance(first, second, ddof), rel=1e-7)


@pytest.mark.parametrize("count", [2, 30, 200])
def test_a_sample_is_at_no_distance_from_itself(count: int) -> None:
    sample = 100 * samples(count, 50, 2).astype(np.float32)
    assert sample_distance(sample, sample, 1) < 1e-6
    assert sample_distance(sample, sample[::-1], 1) < 1e-6


def test_rotations_and_shifts_change_nothing() -> None:
    first, second = samples(80, 10, 3), samples(70, 10, 4)
    rotation = scipy.linalg.qr(np.random.default_rng(5).normal(size=(10, 10)))[0]
    moved = sample_distance(first @ rotation + 3, second @ rotation + 3, 1)
    assert moved == pytest.approx(sample_distance(first, second, 1), rel=1e-10)
