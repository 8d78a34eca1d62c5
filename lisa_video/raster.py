"""Anti-aliased drawing by signed distance: the one primitive of skeletons and figures.

Shape legend: H W pixels. Coordinates are continuous: the centre of pixel i is i + 0.5.
"""

from __future__ import annotations

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
    reach = max(r0, r1) + 0.5
    left, top = np.floor(np.minimum(p0, p1) - reach)
    right, bottom = np.ceil(np.maximum(p0, p1) + reach)
    columns = slice(int(np.clip(left, 0, width)), int(np.clip(right, 0, width)))
    rows = slice(int(np.clip(top, 0, height)), int(np.clip(bottom, 0, height)))
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + 0.5 - np.float32(p0[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - np.float32(p0[1])
    axis_x, axis_y = np.float32(p1[0] - p0[0]), np.float32(p1[1] - p0[1])
    squared = axis_x * axis_x + axis_y * axis_y
    # Position along the axis, 0 at p0 and 1 at p1; a capsule without length is a disc.
    along = (x * axis_x + y * axis_y) / squared if squared > 1e-9 else np.zeros_like(x * y)
    along = np.clip(along, 0.0, 1.0)
    distance = np.hypot(x - along * axis_x, y - along * axis_y)
    radius = np.float32(r0) + np.float32(r1 - r0) * along
    coverage[rows, columns] = np.clip(radius - distance + 0.5, 0.0, 1.0)
    return coverage
