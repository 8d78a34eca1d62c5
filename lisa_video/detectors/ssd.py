"""Decoding of BlazePose's person detector, a single-shot detector without box sizes in its anchors.

Settings are those of MediaPipe's graph `modules/pose_detection/pose_detection_cpu.pbtxt`.

Shape legend: N anchors. Coordinates are shares of the square input, x to the right and y down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INPUT_SIZE = 224
"""Side of the detector's square input in pixels."""

_STRIDES = (8, 16, 32, 32, 32)
_ANCHORS_PER_CELL = 2
_MIN_IOU = 0.3  # boxes that overlap the best one this much are about the same person


def anchor_centres() -> NDArray[np.float32]:
    """Centres of the anchors, float32 (2254, 2), in the order of the network's outputs.

    Layers of one stride share a grid, and their anchors of one cell follow each other.
    """
    centres = []
    for stride in sorted(set(_STRIDES)):
        cells = INPUT_SIZE // stride
        y, x = np.mgrid[:cells, :cells]
        grid = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        centres.append(np.repeat(grid, _ANCHORS_PER_CELL * _STRIDES.count(stride), axis=0))
    return np.concatenate(centres).astype(np.float32)


def decode_points(
    raw: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes and keypoints of each anchor.

    Args:
        raw: (N, 12), the network's box output in input pixels: centre of the box relative to the
            anchor, its width and height, four points relative to the anchor.
        centres: (N, 2) from `anchor_centres`.

    Returns:
        boxes (N, 4) as left, top, right, bottom, and points (N, 4, 2).
    """
    values = raw.reshape(-1, 6, 2) / np.float32(INPUT_SIZE)
    middle, half = values[:, 0] + centres, values[:, 1] / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    return boxes, values[:, 2:] + centres[:, None]


def best_person(
    scores: NDArray[np.float32], boxes: NDArray[np.float32], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Points (4, 2) of the most certain person.

    Weighted non-maximum suppression, as far as its first result: the average of all detections
    that overlap the best one, weighted by their scores.

    Args:
        scores: (N,) in (0, 1], N >= 1.
        boxes: (N, 4).
        points: (N, 4, 2).
    """
    best = scores.argmax()
    same = overlap(boxes[best], boxes) > _MIN_IOU
    same[best] = True  # an empty box overlaps nothing, itself included
    weights = scores[same, None, None]
    return (points[same] * weights).sum(axis=0) / weights.sum()


def overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of `box` (4,) with each of `boxes` (N, 4); float32 (N,) in [0, 1]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    union = (box[2:] - box[:2]).clip(0).prod() + areas - shared
    return shared / np.maximum(union, np.finfo(np.float32).tiny)
