"""Anti-aliased drawing by signed distance: the one primitive of skeletons and figures.

Shape legend: H W pixels. Coordinates are continuous: the centre of pixel i is i + 0.5.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np


def capsule_coverage(
    p0: np.ndarray, p1: np.ndarray, r0: float, r1: float, width: int, height: int
) -> np.ndarray:
    """Share of each pixel that a capsule covers, its edge softened over one pixel.

    Args:
        p0, p1: (2,) ends of the axis, x and y in pixels.
        r0, r1: radius at each end in pixels; it changes linearly along the axis.
        width, height: size of the picture.

    Returns:
        float32 (H, W) in [0, 1].
    """
    coverage = np.zeros((height, width), dtype=np.float32)
    rows, columns, patch = capsule_patch(p0, p1, r0, r1, width, height)
    coverage[rows, columns] = patch
    return coverage


def capsule_patch(
    p0: np.ndarray, p1: np.ndarray, r0: float, r1: float, width: int, height: int
) -> tuple[slice, slice, np.ndarray]:
    """The part of a picture outside which `capsule_coverage`, with the same arguments, is 0.

    Returns:
        Its rows and columns, and the coverage there, float32; all are empty beyond the picture.
    """
    reach = max(r0, r1) + 0.5
    columns = _pixels(p0[0], p1[0], reach, width)
    rows = _pixels(p0[1], p1[1], reach, height)
    x: np.ndarray = _centres(width)[columns][None, :] - np.float32(p0[0])
    y: np.ndarray = _centres(height)[rows][:, None] - np.float32(p0[1])
    axis_x, axis_y = np.float32(p1[0] - p0[0]), np.float32(p1[1] - p0[1])
    squared = axis_x * axis_x + axis_y * axis_y
    radius: Any = np.float32(r0)
    # Position along the axis, 0 at p0 and 1 at p1; a capsule without length is a disc.
    if squared > 1e-9:
        along = _clamped((x * axis_x + y * axis_y) / squared)
        x, y = x - along * axis_x, y - along * axis_y
        if r0 != r1:
            radius = radius + np.float32(r1 - r0) * along
    return rows, columns, _clamped(radius - np.hypot(x, y) + 0.5)


def _pixels(start: float, end: float, reach: float, size: int) -> slice:
    """Of `size` pixels, those that come within `reach` of a line."""
    first, last = math.floor(min(start, end) - reach), math.ceil(max(start, end) + reach)
    return slice(min(max(first, 0), size), min(max(last, 0), size))


@lru_cache(maxsize=16)
def _centres(size: int) -> np.ndarray:
    centres = np.arange(size, dtype=np.float32) + 0.5
    centres.flags.writeable = False
    return centres


def _clamped(values: np.ndarray) -> np.ndarray:
    """`np.clip` to [0, 1], of which most of the time goes by before it looks at small arrays."""
    return np.minimum(np.maximum(values, 0.0), 1.0)
