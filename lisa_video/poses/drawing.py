"""Pose frames: keypoints drawn as the coloured skeletons that side networks look at.

Shape legend: F frames, P people, K keypoints, H W pixels of the drawing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lisa_video.poses.skeletons import (
    BODY,
    COLOURS,
    FACE,
    FACE_COLOUR,
    HAND_COLOURS,
    HAND_JOINT_COLOUR,
    HAND_LIMBS,
    LEFT_HAND,
    LIMBS,
    RIGHT_HAND,
    SKELETONS,
)
from lisa_video.raster import capsule_patch

_LINE_SHARE = 0.022  # line width as a share of the longer side
_MIN_LINE = 1.2  # pixels
_JOINT_SHARE = 0.6  # radius of a joint's disc as a share of the line width
_FINE_SHARE = (
    0.4  # line width of hands and face as a share of the body's, by which fingers stay apart
)


def draw_pose_frames(
    keypoints: NDArray[np.float32], source_size: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Draw skeletons on black, anti-aliased: the body in OpenPose's colours, hands and face, where
    they are given, as DWPose draws them.

    Each limb's colour is multiplied by the lower confidence of its two ends, each joint's by its
    own: a faint pose looks faint. Joints of confidence 0 leave no mark. Where things cross, the
    brighter value of each channel stays, so that the order of people does not matter.

    Args:
        keypoints: (F, P, K, 3) of any of `SKELETONS`, in pixels of the source.
        source_size: width and height of the source in pixels.
        size: width and height of the drawing in pixels. The line width follows it: 2.2 % of the
            longer side, at least 1.2 pixels. Fingers and the dots of a face are finer.

    Returns:
        float32 (F, 3, H, W) in [0, 1].
    """
    known = [(len(names), 3) for names in SKELETONS.values()]
    assert keypoints.ndim == 4 and keypoints.shape[2:] in known, keypoints.shape
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
    width = line_width((frame.shape[2], frame.shape[1]))
    _draw_part(frame, joints[BODY], LIMBS, COLOURS, COLOURS, width)
    fine = max(_MIN_LINE, _FINE_SHARE * width)
    for hand in (joints[LEFT_HAND], joints[RIGHT_HAND]):
        dots = np.broadcast_to(HAND_JOINT_COLOUR, (len(hand), 3))
        _draw_part(frame, hand, HAND_LIMBS if len(hand) else (), HAND_COLOURS, dots, fine)
    face = joints[FACE]
    _draw_part(frame, face, (), FACE_COLOUR, np.broadcast_to(FACE_COLOUR, (len(face), 3)), fine)


def _draw_part(
    frame: NDArray[np.float32],
    joints: NDArray[np.float32],
    limbs: Sequence[tuple[int, int]],
    limb_colours: NDArray[np.float32],
    joint_colours: NDArray[np.float32],
    width: float,
) -> None:
    for (start, end), colour in zip(limbs, limb_colours, strict=False):
        confidence = min(joints[start, 2], joints[end, 2])
        if confidence > 0:
            _blend(frame, joints[start, :2], joints[end, :2], width / 2, colour * confidence)
    for (x, y, confidence), colour in zip(joints, joint_colours, strict=True):
        if confidence > 0:
            centre = np.array([x, y])
            _blend(frame, centre, centre, _JOINT_SHARE * width, colour * confidence)


def _blend(
    frame: NDArray[np.float32],
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    radius: float,
    colour: NDArray[np.float32],
) -> None:
    height, width = frame.shape[1:]
    rows, columns, coverage = capsule_patch(start, end, radius, radius, width, height)
    part = frame[:, rows, columns]
    np.maximum(part, colour[:, None, None] * coverage, out=part)
