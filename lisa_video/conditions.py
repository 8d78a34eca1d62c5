"""What a side network looks at: skeletons, a part of them, or edges, drawn frame by frame.

Shapes: F frames, P people, K keypoints, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.condition_config import ConditionKind
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.poses.skeletons import BODY, LEFT_HAND, OPENPOSE_18, RIGHT_HAND

CANNY_THRESHOLDS = (100, 200)
"""Of the gradient: below the first is no edge, above the second is one (those of ControlNet's)."""

_UPPER = ("neck", "shoulder", "elbow", "wrist", "nose", "eye", "ear")
_LOWER = ("hip", "knee", "ankle")


def reads_video(kind: ConditionKind) -> bool:
    """Whether this kind is drawn from pixels, and not from poses."""
    return kind == "edges"


def subset(kind: ConditionKind, poses: PoseSequence) -> PoseSequence:
    """The poses with the confidence of all joints set to 0 that this kind leaves out.

    Raises UserError where the skeleton has none of its joints.
    """
    if kind in ("pose", "edges"):
        return poses
    kept = joints(kind, poses.keypoints.shape[2])
    if not kept.any():
        raise UserError(
            f"condition={kind}: a skeleton of {poses.keypoints.shape[2]} keypoints has no such "
            "joints; extract the poses with a detector that finds them, such as dwpose"
        )
    keypoints = poses.keypoints.copy()
    keypoints[:, :, ~kept, 2] = 0
    return replace(poses, keypoints=keypoints)


def joints(kind: ConditionKind, count: int) -> NDArray[np.bool_]:
    """Which of the `count` keypoints of a skeleton, (K,), belong to this kind."""
    kept = np.zeros(count, dtype=bool)
    if kind in ("pose", "edges"):
        kept[:] = True
    elif kind == "body":
        kept[BODY] = True
    elif kind == "hands":
        kept[LEFT_HAND] = kept[RIGHT_HAND] = True
    else:
        parts = _UPPER if kind == "upper_body" else _LOWER
        kept[BODY] = [name.split("_")[-1] in parts for name in OPENPOSE_18]
    return kept


def frame_weights(kind: ConditionKind, poses: PoseSequence) -> NDArray[np.float32]:
    """How far to trust the condition of each frame, float32 (F,) in [0, 1].

    Of poses the mean confidence of the joints that are shown, of the most confident person; of
    edges, which are never unsure, 1.
    """
    if kind == "edges":
        return np.ones(len(poses), dtype=np.float32)
    if kind in ("pose", "body"):
        return poses.frame_weights()
    confidence = poses.keypoints[:, :, joints(kind, poses.keypoints.shape[2]), 2]
    return confidence.mean(axis=-1).max(axis=-1, initial=0)


def draw_poses(kind: ConditionKind, poses: PoseSequence) -> NDArray[np.uint8]:
    """Poses as this kind shows them, (F, 3, H, W), in the size that they are in; errors as `subset`."""
    size = (poses.width, poses.height)
    shown = subset(kind, poses)
    return (draw_pose_frames(shown.keypoints, size, size) * 255).round().astype(np.uint8)


def draw_edges(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Canny's edges of frames (F, H, W, 3), white on black: (F, 3, H, W).

    Source: Canny 1986, by OpenCV, in each colour channel where its gradient is the largest.
    """
    edges = np.stack([cv2.Canny(frame, *CANNY_THRESHOLDS) for frame in pixels])
    return np.repeat(edges[:, None], 3, axis=1)
