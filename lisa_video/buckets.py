"""Buckets: the shapes that clips are trained in, which clip goes to which, and the order of turns.

A clip goes to the bucket that suits it best, for good: it depends on the manifest alone. A step
takes the clips of one bucket, whatever its passes and processes, so that all of them have equal
shapes at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

NO_BUCKET = -1
_CUT_STEP = 0.05  # share of the picture; buckets that cut away as much as to this suit alike


@dataclass(frozen=True)
class Bucket:
    """A shape of training clips."""

    frames: int
    size: tuple[int, int]
    """Width and height in pixels."""

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.size[0]}x{self.size[1]}"


def best_buckets(
    buckets: Sequence[Bucket],
    width: NDArray[np.integer],
    height: NDArray[np.integer],
    long_enough: Sequence[NDArray[np.bool_]],
) -> NDArray[np.int16]:
    """The index of each of N clips' bucket, (N,); `NO_BUCKET` where none has windows short enough.

    Of the buckets that a clip is long enough for, it gets the one that cuts away least of its
    picture, in steps of 5 %. Among equals, one that need not enlarge it; then the longest; then the
    largest; then the first listed.

    Args:
        buckets: to choose from.
        width, height: of the clips in pixels, (N,).
        long_enough: for each bucket, whether clips hold a window of it, (N,).
    """
    by_extent = sorted(
        range(len(buckets)),
        key=lambda index: (-buckets[index].frames, -np.prod(buckets[index].size), index),
    )
    chosen = np.full(len(width), NO_BUCKET, np.int16)
    least = np.full(len(width), np.inf, np.float32)
    for index in by_extent:
        scales = np.stack([buckets[index].size[0] / width, buckets[index].size[1] / height])
        kept = scales.min(axis=0) / scales.max(axis=0)
        enlarged = scales.max(axis=0) > 1
        cost = np.rint((1 - kept) / _CUT_STEP) + 0.5 * enlarged
        better = long_enough[index] & (cost < least)
        chosen[better], least[better] = index, cost[better]
    return chosen


@dataclass(frozen=True)
class Turn:
    """Whose clips a step takes."""

    bucket: int
    number: int
    """Steps of this bucket before this one."""


class TurnOrder:
    """Which bucket has its turn at each step: a function of (sizes of the buckets, step).

    Turn k (from 0) of a bucket that holds the share p of all clips is due at the time
    (k + 1/2) / p, and turns are taken in the order of these times (as Sainte-Laguë's method deals
    out seats). So a bucket has its share of any stretch of steps, evenly spread, and no clip is
    seen more often for the bucket it is in. Turns are computed in exact fractions, from any step on
    without those before it.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        assert sum(sizes) > 0, sizes
        self.shares = {
            index: Fraction(size, sum(sizes)) for index, size in enumerate(sizes) if size
        }

    def turn(self, step: int) -> Turn:
        """Of step `step`, counted from 0."""
        # Before this time less than `step` turns are due: at most step - 1 by shares, and each
        # bucket may be half a turn ahead.
        time = max(0, step - len(self.shares))
        taken = {index: _due_before(time, share) for index, share in self.shares.items()}
        while True:
            bucket = min(taken, key=lambda index: (self._due(index, taken[index]), index))
            if sum(taken.values()) == step:
                return Turn(bucket, taken[bucket])
            taken[bucket] += 1

    def _due(self, bucket: int, number: int) -> Fraction:
        return (number + Fraction(1, 2)) / self.shares[bucket]


def _due_before(time: int, share: Fraction) -> int:
    """How many k from 0 have (k + 1/2) / share < time."""
    return max(0, -((Fraction(1, 2) - time * share) // 1))
