"""Whether generated clips follow the poses asked for, frame by frame.

Shape legend: F frames, P and Q people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lisa_video.detectors.base import PoseDetector, pad_people
from lisa_video.evaluation.pose_scores import asked_keypoints
from lisa_video.metrics.pose import pck
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import BODY, SKELETONS
from lisa_video.rendering.spool import SpooledClip
from lisa_video.reports import json_number

THRESHOLD = 0.1


@dataclass(frozen=True, eq=False)
class FollowedPoses:
    """Joints asked for and found in one clip, in pixels of its frames."""

    asked: NDArray[np.float32]
    """(F, P, 18, 3)."""
    found: NDArray[np.float32]
    """(F, Q, 18, 3)."""
    pck: float
    """PCK@0.1 of the clip: share of the joints found within 0.1 of the longer side of the person's
    box."""
    per_frame: NDArray[np.float64]
    """(F,) the same of each frame; NaN where no joint is asked for."""

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        per_frame = [json_number(round(float(value), 4)) for value in self.per_frame]
        return {f"pck@{THRESHOLD:g}": json_number(self.pck), "per_frame": per_frame}


def followed_poses(clip: SpooledClip, poses: PoseSequence, detector: PoseDetector) -> FollowedPoses:
    """Detect in the clip's frames, one by one, and compare.

    Raises:
        UserError: the poses have nobody to score within the frames.
    """
    people = pad_people(list(detector.stream(clip.frames())), len(SKELETONS[detector.skeleton]))
    height, width = clip.shape[1:3]
    asked, found = asked_keypoints(poses, (height, width)), people[:, :, BODY]
    result = pck(found, asked, THRESHOLD)
    return FollowedPoses(asked, found, result.value, result.per_frame)
