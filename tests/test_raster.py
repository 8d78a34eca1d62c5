"""Capsules. H W pixels."""

import numpy as np
import pytest

from lisa_video.raster import capsule_coverage, capsule_patch

WIDTH, HEIGHT = 24, 16


def covered(p0: np.ndarray, p1: np.ndarray, r0: float, r1: float) -> np.ndarray:
    """The formula in float64 for every pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    axis = (p1 - p0).astype(np.float64)
    squared = axis @ axis
    along = ((x - p0[0]) * axis[0] + (y - p0[1]) * axis[1]) / (squared or 1.0)
    along = along.clip(0, 1)
    distance = np.hypot(x - p0[0] - along * axis[0], y - p0[1] - along * axis[1])
    return np.clip(r0 + (r1 - r0) * along - distance + 0.5, 0, 1)


@pytest.mark.parametrize("seed", range(40))
def test_a_patch_holds_all_that_a_capsule_covers(seed: int) -> None:
    """Inside the picture, across its edges and beyond; capsules without length among them."""
    rng = np.random.default_rng(seed)
    p0, p1 = rng.uniform([-12, -12], [WIDTH + 12, HEIGHT + 12], (2, 2)).astype(np.float32)
    p1 = p0 if seed % 4 == 0 else p1
    radii = rng.uniform(0.3, 4, 2)
    whole = capsule_coverage(p0, p1, *radii, WIDTH, HEIGHT)
    assert whole.dtype == np.float32 and whole.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(whole, covered(p0, p1, *radii), atol=2e-5)
    rows, columns, patch = capsule_patch(p0, p1, *radii, WIDTH, HEIGHT)
    np.testing.assert_array_equal(whole[rows, columns], patch)
    whole[rows, columns] = 0
    assert not whole.any()
