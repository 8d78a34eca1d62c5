"""The kernel distance against its definition, and where it must vanish."""

import numpy as np
import pytest

from lisa_video.metrics.kernel import kernel_distance


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
        for s in (first, second)
    ]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in first for b in second]))


def test_pairs_of_one_sample_are_taken_without_themselves() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(7, 3)), random.normal(1, size=(5, 3))
    assert kernel_distance(first, second) == pytest.approx(by_definition(first, second), abs=1e-12)


def test_it_has_no_bias() -> None:
    """Of equal distributions it is 0 on average at any size, where a Fréchet distance is not."""
    random = np.random.default_rng(1)
    draws = [
        kernel_distance(random.normal(size=(6, 2)), random.normal(size=(6, 2))) for _ in range(3000)
    ]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0
    assert kernel_distance(random.normal(size=(200, 2)), random.normal(2, size=(200, 2))) > 1
