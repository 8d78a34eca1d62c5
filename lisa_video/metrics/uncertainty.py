"""How sure a distance between two samples is, and what it would be without end.

Both functions draw smaller samples without replacement: a bootstrap's duplicates would shrink the
covariances and shift the distance itself.

Shapes: N, M samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError

Distance = Callable[[NDArray[np.floating], NDArray[np.floating]], float]

EXTRAPOLATED_SIZES = 10
"""Sizes at which the distance is taken for its extrapolation, evenly spaced in 1/n."""
SIZES_OVER_DIMENSION = 2
"""Smallest size of the extrapolation in multiples of D: the terms beyond 1/n are of order D/n."""


@dataclass(frozen=True)
class Interval:
    """Where the distance of other samples of the same sizes would lie."""

    low: float
    high: float
    level: float
    """Share of samples within, as in 0.95."""
    draws: int
    """Pairs of half samples drawn."""


@dataclass(frozen=True)
class Extrapolation:
    """The line value(n) = limit + slope / n through distances of samples of growing size n."""

    limit: float
    """The value without end, free of the bias of the sample size."""
    slope: float
    sizes: list[int]
    values: list[float]
    """Mean distance at each size."""
    r_squared: float
    """Share of the values' variance that the line explains."""


def half_sample_interval(
    distance: Distance,
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    value: float,
    draws: int,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Interval of `value`, the distance of `first` (N, D) and `second` (M, D), by half samples.

    A half drawn without replacement varies around the whole as the whole varies around the truth:
    its variance is s^2/m (1 - m/N), with m = N/2 that of N samples (Shao & Tu 1995, sec. 2.3, the
    delete-half jackknife; Politis & Romano 1994 on subsampling). Deviations are taken from the mean
    of the halves: their distances are biased upward together. The interval is of the distance at
    these sample sizes; that it is biased itself is `extrapolate`'s matter.

    Raises UserError below 4 samples on one side.
    """
    if min(len(first), len(second)) < 4:
        raise UserError("an interval needs at least 4 clips on each side")
    random = np.random.default_rng(seed)
    values = np.array(
        [
            distance(
                _drawn(random, first, len(first) // 2), _drawn(random, second, len(second) // 2)
            )
            for _ in range(draws)
        ]
    )
    tail = (1 - level) / 2
    low, high = value + np.quantile(values - values.mean(), [tail, 1 - tail])
    return Interval(float(low), float(high), level, draws)


def extrapolate(
    distance: Distance,
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    seed: int,
    draws: int = 4,
) -> Extrapolation:
    """The distance of `first` (N, D) and `second` (M, D) without end (Chong & Forsyth 2020, sec. 4).

    The bias of a Fréchet distance falls as 1/n once n is well above D. Sizes run from half of the
    smaller sample to all of it, with `draws` samples at each.

    Raises UserError where half of the smaller sample is below `SIZES_OVER_DIMENSION` D.
    """
    largest, dimension = min(len(first), len(second)), first.shape[1]
    smallest = largest // 2
    if smallest < SIZES_OVER_DIMENSION * dimension:
        needed = 2 * SIZES_OVER_DIMENSION * dimension
        raise UserError(
            f"extrapolation needs {needed} clips on each side, there are {largest}: below "
            f"{SIZES_OVER_DIMENSION} clips per feature (D = {dimension}) the bias does not fall "
            "as 1/n"
        )
    random = np.random.default_rng(seed)
    inverse = np.linspace(1 / smallest, 1 / largest, EXTRAPOLATED_SIZES)
    sizes = [round(1 / value) for value in inverse]
    values = [
        float(
            np.mean(
                [
                    distance(_drawn(random, first, size), _drawn(random, second, size))
                    for _ in range(draws)
                ]
            )
        )
        for size in sizes
    ]
    slope, limit = np.polyfit(1 / np.array(sizes), values, 1)
    residual = np.array(values) - (limit + slope / np.array(sizes))
    spread = np.var(values)
    r_squared = 1 - np.var(residual) / spread if spread > 0 else 1.0
    return Extrapolation(float(limit), float(slope), sizes, values, float(r_squared))


def _drawn(
    random: np.random.Generator, sample: NDArray[np.floating], size: int
) -> NDArray[np.floating]:
    return sample[random.choice(len(sample), size, replace=False)]
