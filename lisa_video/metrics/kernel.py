"""Kernel video distance: the squared maximum mean discrepancy under a polynomial kernel.

Shapes: N, M samples, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kernel_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Unbiased MMD^2 of two samples (N, D) and (M, D); it can fall below 0.

    Gretton et al. 2012, eq. 3, with the kernel (x.y / D + 1)^3 of KID (Binkowski et al. 2018,
    sec. 4), which Unterthiner et al. 2018 take over for video. Each sample needs two rows.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    assert len(x) > 1 and len(y) > 1 and x.shape[1] == y.shape[1], (x.shape, y.shape)
    return float(_off_diagonal_mean(x) + _off_diagonal_mean(y) - 2 * _kernel(x, y).mean())


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, D) and (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_mean(x: NDArray[np.float64]) -> float:
    kernel = _kernel(x, x)
    count = len(x)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
