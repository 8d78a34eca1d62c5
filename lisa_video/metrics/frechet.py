"""The Fréchet distance between two Gaussians, and between two samples taken for Gaussians.

    d = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

(Dowson & Landau 1982, "The Fréchet distance between multivariate normal distributions", eq. 4; as
FID in Heusel et al. 2017, eq. 6, and as FVD in Unterthiner et al. 2018.)

With C1 = A A^T and C2 = B B^T the eigenvalues of C1 C2 are the squared singular values of A^T B, so
that the trace of the root is the nuclear norm of A^T B. Nothing is squared on the way: what scipy's
`sqrtm` loses in singular products, and its complex results, do not arise.

Shapes: N samples, D features, R rank of a factor.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(mean1: Array, covariance1: Array, mean2: Array, covariance2: Array) -> float:
    """Distance of two Gaussians from their means (D,) and covariances (D, D), float64."""
    factors = covariance_factor(covariance1), covariance_factor(covariance2)
    return distance_of_factors(mean1, factors[0], mean2, factors[1])


def sample_distance(first: NDArray[np.floating], second: NDArray[np.floating], ddof: int) -> float:
    """Distance of two samples (N, D) and (M, D); `ddof` as in `numpy.cov`, 1 or 0.

    Each sample needs more than `ddof` rows.
    """
    means = [sample.mean(0, dtype=np.float64) for sample in (first, second)]
    factors = [sample_factor(sample, ddof) for sample in (first, second)]
    return distance_of_factors(means[0], factors[0], means[1], factors[1])


def distance_of_factors(mean1: Array, factor1: Array, mean2: Array, factor2: Array) -> float:
    """Distance from means (D,) and factors (D, R) of the covariances; the ranks may differ."""
    assert mean1.shape == mean2.shape, (mean1.shape, mean2.shape)
    root_trace = scipy.linalg.svdvals(factor1.T @ factor2).sum()
    distance = (
        np.square(mean1 - mean2).sum()
        + np.square(factor1).sum()
        + np.square(factor2).sum()
        - 2 * root_trace
    )
    return max(0.0, float(distance))  # rounding can take a distance of 0 below it


def sample_factor(features: NDArray[np.floating], ddof: int) -> Array:
    """A factor (D, R) of a sample's covariance: its own centred rows where N < D, otherwise by
    `covariance_factor`, so that R is never above D."""
    count, dimension = features.shape
    assert count > ddof, (count, ddof)
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    if count < dimension:
        return centred.T / np.sqrt(count - ddof)
    return covariance_factor(centred.T @ centred / (count - ddof))


def covariance_factor(covariance: Array) -> Array:
    """A factor (D, R) of a covariance (D, D), from its symmetric eigenvalues above 0."""
    values, vectors = scipy.linalg.eigh(covariance)
    kept = values > 0
    return vectors[:, kept] * np.sqrt(values[kept])
