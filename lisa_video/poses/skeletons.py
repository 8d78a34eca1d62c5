"""The skeleton that poses are stored in, OpenPose's 18 keypoints, and the way to it from others.

Shape legend: ... any leading axes, K keypoints: x, y in pixels and confidence in [0, 1].
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

OPENPOSE_18 = (
    "nose",
    "neck",
    "r_shoulder",
    "r_elbow",
    "r_wrist",
    "l_shoulder",
    "l_elbow",
    "l_wrist",
    "r_hip",
    "r_knee",
    "r_ankle",
    "l_hip",
    "l_knee",
    "l_ankle",
    "r_eye",
    "l_eye",
    "r_ear",
    "l_ear",
)
"""Keypoint names in the order of OpenPose's COCO model; right and left are the person's own."""

COCO_17 = (
    "nose",
    "l_eye",
    "r_eye",
    "l_ear",
    "r_ear",
    "l_shoulder",
    "r_shoulder",
    "l_elbow",
    "r_elbow",
    "l_wrist",
    "r_wrist",
    "l_hip",
    "r_hip",
    "l_knee",
    "r_knee",
    "l_ankle",
    "r_ankle",
)
"""Keypoint names of the COCO annotations."""

BLAZEPOSE_33 = (
    "nose",
    "l_eye_inner",
    "l_eye",
    "l_eye_outer",
    "r_eye_inner",
    "r_eye",
    "r_eye_outer",
    "l_ear",
    "r_ear",
    "l_mouth",
    "r_mouth",
    "l_shoulder",
    "r_shoulder",
    "l_elbow",
    "r_elbow",
    "l_wrist",
    "r_wrist",
    "l_pinky",
    "r_pinky",
    "l_index",
    "r_index",
    "l_thumb",
    "r_thumb",
    "l_hip",
    "r_hip",
    "l_knee",
    "r_knee",
    "l_ankle",
    "r_ankle",
    "l_heel",
    "r_heel",
    "l_foot",
    "r_foot",
)
"""Landmark names of MediaPipe's BlazePose; "foot" is the tip of the foot."""

_LIMB_NAMES = (
    ("neck", "r_shoulder"),
    ("neck", "l_shoulder"),
    ("r_shoulder", "r_elbow"),
    ("r_elbow", "r_wrist"),
    ("l_shoulder", "l_elbow"),
    ("l_elbow", "l_wrist"),
    ("neck", "r_hip"),
    ("r_hip", "r_knee"),
    ("r_knee", "r_ankle"),
    ("neck", "l_hip"),
    ("l_hip", "l_knee"),
    ("l_knee", "l_ankle"),
    ("neck", "nose"),
    ("nose", "r_eye"),
    ("r_eye", "r_ear"),
    ("nose", "l_eye"),
    ("l_eye", "l_ear"),
)

LIMBS = tuple((OPENPOSE_18.index(start), OPENPOSE_18.index(end)) for start, end in _LIMB_NAMES)
"""Keypoint indices of the ends of the 17 limbs, in OpenPose's order, which is that of `COLOURS`."""

COLOURS: NDArray[np.float32] = np.array(
    [colorsys.hsv_to_rgb(step / 18, 1.0, 1.0) for step in range(18)], dtype=np.float32
)
"""(18, 3) RGB in [0, 1]: hues 20 degrees apart, as in OpenPose. Keypoint k has the k-th, and so has
limb k."""


def from_coco17(keypoints: NDArray[np.floating]) -> NDArray[np.float32]:
    """COCO-17 (..., 17, 3) -> OpenPose-18 (..., 18, 3); the neck as in `from_named`."""
    return from_named(keypoints, COCO_17)


def from_blazepose33(keypoints: NDArray[np.floating]) -> NDArray[np.float32]:
    """BlazePose-33 (..., 33, 3) -> OpenPose-18 (..., 18, 3); the neck as in `from_named`.

    Hands, mouth, heels, tips of the feet and the corners of the eyes have no place there.
    """
    return from_named(keypoints, BLAZEPOSE_33)


def from_named(keypoints: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float32]:
    """Keypoints (..., K, 3) of a skeleton without a neck -> OpenPose-18 (..., 18, 3).

    `names` gives the K keypoints' names, spelt as in `OPENPOSE_18`. The neck is the middle of the
    shoulders, as in OpenPose's training data, with the lower of their two confidences.
    """
    assert keypoints.shape[-2:] == (len(names), 3), (keypoints.shape, len(names))
    result = np.empty((*keypoints.shape[:-2], len(OPENPOSE_18), 3), dtype=np.float32)
    for index, name in enumerate(OPENPOSE_18):
        if name != "neck":
            result[..., index, :] = keypoints[..., names.index(name), :]
    right = keypoints[..., names.index("r_shoulder"), :]
    left = keypoints[..., names.index("l_shoulder"), :]
    neck = result[..., OPENPOSE_18.index("neck"), :]
    neck[..., :2] = (right[..., :2] + left[..., :2]) / 2
    neck[..., 2] = np.minimum(right[..., 2], left[..., 2])
    return result


def flip_order(skeleton: str) -> NDArray[np.int64]:
    """Where each joint of a mirrored person comes from: left and right exchanged."""
    assert skeleton == "openpose18", skeleton
    other = {"l_": "r_", "r_": "l_"}
    return np.array(
        [OPENPOSE_18.index(other.get(name[:2], name[:2]) + name[2:]) for name in OPENPOSE_18]
    )
