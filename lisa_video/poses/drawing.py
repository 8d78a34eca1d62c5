"""Pose frames: keypoints drawn as the coloured skeletons that side networks look at.

Shape legend: F frames, P people, K keypoints, H W pixels of the drawing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lisa_video.poses.skeletons import COLOURS, LIMBS
from lisa_video.raster import capsule_coverage

_LINE_SHARE = 0.022  # line width as a share of the longer side
_MIN_LINE = 1.2  # pixels
_JOINT_SHARE = 0.6  # radius of a joint's disc as a share of the line width


def draw_pose_frames(
    keypoints: NDArray[np.float32], source_size: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Draw OpenPose-18 skeletons on black, anti-aliased, in OpenPose's colours.

    Each limb's colour is multiplied by the lower confidence of its two ends, each joint's by its
    own: a faint pose looks faint. Joints of confidence 0 leave no mark. Where things cross, the
    brighter value of each channel stays, so that the order of people does not matter.

    Args:
        keypoints: (F, P, 18, 3) in pixels of the source.
        source_size: width and height of the source in pixels.
        size: width and height of the drawing in pixels. The line width follows it: 2.2 % of the
            longer side, at least 1.2 pixels.

    Returns:
        float32 (F, 3, H, W) in [0, 1].
    """
    assert keypoints.ndim == 4 and keypoints.shape[2:] == (18, 3), keypoints.shape
    scale = np.array([size[0] / source_size[0], size[1] / source_size[1], 1], dtype=np.float32)
    frames = np.zeros((len(keypoints), 3, size[1], size[0]), dtype=np.float32)
    for frame, people in zip(frames, keypoints * scale, strict=True):
        for person in people:
            _draw_person(frame, person)
    return frames


def line_width(size: tuple[int, int]) -> float:
    """Width of a limb in pixels, for a drawing of `size` (width, height)."""
    return max(_MIN_LINE, _LINE_SHARE * max(size))


def _draw_person(frame: NDArray[np.float32], joints: NDArray[np.float32]) -> None:
    """Add one person, (K, 3) in pixels of the drawing, to a frame (3, H, W) in place."""
    size = (frame.shape[2], frame.shape[1])
    radius = line_width(size) / 2
    for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
        confidence = min(joints[start, 2], joints[end, 2])
        if confidence > 0:
            _blend(frame, joints[start, :2], joints[end, :2], radius, colour * confidence)
    for (x, y, confidence), colour in zip(joints, COLOURS, strict=True):
        if confidence > 0:
            centre = np.array([x, y])
            _blend(frame, centre, centre, _JOINT_SHARE * line_width(size), colour * confidence)


def _blend(
    frame: NDArray[np.float32],
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    radius: float,
    colour: NDArray[np.float32],
) -> None:
    coverage = capsule_coverage(start, end, radius, radius, frame.shape[2], frame.shape[1])
    np.maximum(frame, colour[:, None, None] * coverage, out=frame)
