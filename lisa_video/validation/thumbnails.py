"""A small picture of a clip with its skeletons, as a job of `map_jobs`.

Shape legend: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.manifest_lines import DatasetFiles, ManifestEntry
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.validation.findings import Line
from lisa_video.video import read_video

_SIDE = 208  # pixels of the longer side
_DIMMED = 0.6  # of the picture under the skeletons


@dataclass(frozen=True)
class Thumbnail:
    """Of the clip of a line."""

    number: int
    jpeg: bytes | None
    """None where the video cannot be read."""


def make_thumbnail(line: Line, *, root: Path) -> Thumbnail:
    """The frame in the middle of a clip, under its poses as far as these can be read."""
    entry = line.entry
    files = DatasetFiles(root)
    if files.problem(entry.video):
        return Thumbnail(line.number, None)
    try:
        frame = read_video(root / entry.video, [entry.frames // 2]).frames[0]
    except UserError:
        return Thumbnail(line.number, None)
    height, width = frame.shape[:2]
    scale = _SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) / np.float32(255)
    if files.problem(entry.poses) is None:
        picture = np.maximum(picture * _DIMMED, _skeletons(root, entry, size))
    bgr = cv2.cvtColor((picture * 255).round().astype(np.uint8), cv2.COLOR_RGB2BGR)
    written, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert written
    return Thumbnail(line.number, content.tobytes())


def _skeletons(root: Path, entry: ManifestEntry, size: tuple[int, int]) -> NDArray[np.float32]:
    """The poses of that frame, (H, W, 3) in [0, 1]; black where there are none."""
    try:
        poses = PoseSequence.load(root / entry.poses).frames([entry.frames // 2])
    except (UserError, IndexError):
        return np.zeros((size[1], size[0], 3), np.float32)
    drawn = draw_pose_frames(poses.keypoints, (poses.width, poses.height), size)
    return drawn[0].transpose(1, 2, 0)
