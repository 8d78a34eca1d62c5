"""Clips of coloured dots, and a small detector that locates them by their colours."""

import numpy as np
from numpy.typing import NDArray

from lisa_video.poses import PoseSequence

WIDTH, HEIGHT, FRAMES, RADIUS = 96, 64, 5, 5
COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
BOX = 60  # longer side of the box around the dots


class DotDetector:
    """Finds keypoint k as the centre of all pixels near colour k."""

    name = "dots"

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = np.zeros((len(frames), 1, 18, 3), np.float32)
        for frame, pixels in enumerate(frames):
            for joint, colour in enumerate(COLOURS):
                rows, columns = np.nonzero(np.abs(pixels - colour).max(-1) < 100)
                if len(rows) > 10:
                    found[frame, 0, joint] = columns.mean() + 0.5, rows.mean() + 0.5, 1
        return found


def dot_poses(moved: float = 0.0, frames: int = FRAMES) -> PoseSequence:
    """Six dots that drift to the right, the first of them `moved` pixels down."""
    points = np.array([[12, 12], [42, 12], [72, 12], [12, 42], [42, 42], [72, 42]], np.float32)
    keypoints = np.zeros((frames, 1, 18, 3), np.float32)
    keypoints[:, 0, :6, :2] = points
    keypoints[:, 0, :6, 2] = 1
    keypoints[:, 0, :6, 0] += np.arange(frames)[:, None]
    keypoints[:, 0, 0, 1] += moved
    return PoseSequence(keypoints, WIDTH, HEIGHT, fps=8.0, detector="ground-truth")


def dot_frames(poses: PoseSequence, joints: int = 6) -> NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    frames = np.zeros((len(poses.keypoints), HEIGHT, WIDTH, 3), np.uint8)
    for frame, people in zip(frames, poses.keypoints, strict=True):
        for (column, row, _), colour in zip(people[0, :joints], COLOURS, strict=False):
            frame[(x - column) ** 2 + (y - row) ** 2 <= RADIUS**2] = colour
    return frames
