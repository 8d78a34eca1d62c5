"""Two skeletons over a picture: the pose asked for and the pose found.

Shapes: F frames, P people, H W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.poses.drawing import line_width
from lisa_video.poses.skeletons import LIMBS
from lisa_video.raster import capsule_coverage

ASKED, FOUND = (40, 220, 120), (255, 60, 200)
"""RGB of the two skeletons."""
_DIMMED = 0.7  # of the picture under them


def overlay_strip(
    frames: NDArray[np.uint8],
    asked: NDArray[np.floating],
    found: NDArray[np.floating],
    *,
    pictures: int = 6,
    height: int = 160,
) -> NDArray[np.uint8]:
    """Frames spread over a clip, side by side, with both skeletons.

    Args:
        frames: uint8 (F, H, W, 3).
        asked: (F, P, 18, 3) in pixels of the frames; so is `found`, with people of its own.
        pictures: how many of the frames.
        height: of the strip in pixels.

    Returns:
        uint8 (height, W', 3).
    """
    chosen = np.linspace(0, len(frames) - 1, min(pictures, len(frames))).round().astype(int)
    panels = [
        overlaid(frames[index], asked[index], found[index], height, dimmed=_DIMMED)
        for index in chosen
    ]
    return np.concatenate(panels, axis=1)


def overlaid(
    frame: NDArray[np.uint8],
    asked: NDArray[np.floating],
    found: NDArray[np.floating],
    height: int,
    *,
    dimmed: float = 1.0,
) -> NDArray[np.uint8]:
    """One frame, uint8 (H, W, 3), with both skeletons of each person (P, 18, 3) in its pixels.

    Returns:
        uint8 (height, W', 3); the picture is multiplied by `dimmed`.
    """
    scale = height / frame.shape[0]
    size = (max(1, round(frame.shape[1] * scale)), height)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    picture = cv2.resize(frame, size, interpolation=method) * dimmed
    for people, colour in ((asked, ASKED), (found, FOUND)):
        for person in people:
            _draw(picture, person * [scale, scale, 1], colour)
    return picture.round().astype(np.uint8)


def _draw(
    picture: NDArray[np.floating], joints: NDArray[np.floating], colour: tuple[int, int, int]
) -> None:
    """Add the limbs of one person, (18, 3) in pixels of the picture (H, W, 3), in place."""
    height, width = picture.shape[:2]
    radius = line_width((width, height)) / 2
    for start, end in LIMBS:
        if min(joints[start, 2], joints[end, 2]) > 0:
            cover = capsule_coverage(
                joints[start, :2], joints[end, :2], radius, radius, width, height
            )
            picture += cover[..., None] * (np.array(colour) - picture)
