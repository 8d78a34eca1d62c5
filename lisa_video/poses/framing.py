"""Which part of the driving video becomes the generated frame.

Shapes: F frames, P people, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lisa_video.errors import UserError
from lisa_video.poses.sequence import PoseSequence

Framing = Literal["people", "fit", "stretch"]

PEOPLE_SHARE = 0.85  # of the frame, along the axis in which people fill it more
SURE = 0.3  # confidence from which on a joint has its place in the frame


@dataclass(frozen=True)
class Window:
    """A rectangle of the source picture, in its pixels; it may reach over the edges."""

    left: float
    top: float
    width: float
    height: float


def window_of(poses: PoseSequence, size: tuple[int, int], framing: Framing) -> Window:
    """The window that becomes frames of `size` (width, height).

    "people" is a window of the target's shape around everybody, one for the whole clip, so that
    motion stays motion. "fit" is the smallest of that shape around the whole picture. "stretch" is
    the picture itself. Raises UserError where "people" finds nobody.
    """
    if framing == "stretch":
        return Window(0, 0, poses.width, poses.height)
    if framing == "fit":
        return _shaped(np.zeros(2), np.array([poses.width, poses.height]), size)
    confidence = poses.keypoints[..., 2]
    sure = confidence >= min(SURE, float(confidence.max(initial=0)))
    places = poses.keypoints[sure & (confidence > 0)][:, :2]
    if not len(places):
        raise UserError("framing 'people': the poses hold nobody; use 'fit'")
    low, high = places.min(axis=0), places.max(axis=0)
    # A single joint has no extent: then a pixel stands for it.
    margin = np.maximum(high - low, 1) * (1 / PEOPLE_SHARE - 1) / 2
    return _shaped(low - margin, high + margin, size)


def framed(poses: PoseSequence, size: tuple[int, int], framing: Framing) -> PoseSequence:
    """The poses as they appear in frames of `size` (width, height); errors as in `window_of`.

    Joints beyond the frame keep their places outside of it.
    """
    window = window_of(poses, size, framing)
    width, height = size
    offset = np.array([window.left, window.top, 0], dtype=np.float32)
    scale = np.array([width / window.width, height / window.height, 1], dtype=np.float32)
    keypoints = (poses.keypoints - offset) * scale
    keypoints[poses.keypoints[..., 2] == 0] = 0
    return replace(poses, keypoints=keypoints, width=width, height=height)


def _shaped(low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> Window:
    """The smallest window of the shape of `size` around a box, with the same centre."""
    target = np.array(size)
    extent = target * ((high - low) / target).max()
    corner = (low + high - extent) / 2
    return Window(*(float(value) for value in (*corner, *extent)))
