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
    scale = height / frames.shape[1]
    size = (max(1, round(frames.shape[2] * scale)), height)
    panels = []
    for index in chosen:
        picture = cv2.resize(frames[index], size, interpolation=cv2.INTER_AREA) * _DIMMED
        for people, colour in ((asked[index], ASKED), (found[index], FOUND)):
            for person in people:
                _draw(picture, person * [scale, scale, 1], colour)
        panels.append(picture.round().astype(np.uint8))
    return np.concatenate(panels, axis=1)


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
