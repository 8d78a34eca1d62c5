"""The skeletons that poses are stored in, OpenPose's 18 keypoints with or without hands and face, and
the way to them from others.

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

FINGERS = ("thumb", "index", "middle", "ring", "little")

HAND_21 = ("root", *(f"{finger}_{joint}" for finger in FINGERS for joint in range(1, 5)))
"""Keypoint names of a hand, as in OpenPose and COCO-WholeBody: its root at the wrist, then each
finger from the palm (1) to the tip (4)."""

FACE_68 = tuple(f"face_{index}" for index in range(68))
"""Keypoint names of the face in the order of iBUG's 300-W, which is OpenPose's without the pupils:
jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67."""

_HANDS = tuple(f"{side}_hand_{name}" for side in "lr" for name in HAND_21)

SKELETONS = {
    "openpose18": OPENPOSE_18,
    "openpose18_hands": (*OPENPOSE_18, *_HANDS),
    "openpose18_hands_face": (*OPENPOSE_18, *_HANDS, *FACE_68),
}
"""Names of the K = 18, 60 and 128 keypoints of each skeleton that a pose file may hold. Each begins
with those of the one before: the body comes first, then left hand, right hand and face."""

BODY = slice(0, 18)
LEFT_HAND = slice(18, 39)
RIGHT_HAND = slice(39, 60)
FACE = slice(60, 128)

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

_WHOLE_BODY = 133
_WHOLE_BODY_FACE = slice(23, 91)  # behind the body and 6 points of the feet
_WHOLE_BODY_HANDS = slice(91, 133)  # left, right

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


HAND_LIMBS = tuple(
    (0 if joint == 1 else 4 * finger + joint - 1, 4 * finger + joint)
    for finger in range(5)
    for joint in range(1, 5)
)
"""Indices in `HAND_21` of the ends of the 20 limbs, finger by finger from the root to the tip."""

HAND_COLOURS: NDArray[np.float32] = np.array(
    [colorsys.hsv_to_rgb(step / 20, 1.0, 1.0) for step in range(20)], dtype=np.float32
)
"""(20, 3) RGB in [0, 1] of the limbs of a hand: hues 18 degrees apart, as DWPose's drawings have."""

HAND_JOINT_COLOUR: NDArray[np.float32] = np.array([0, 0, 1], dtype=np.float32)
FACE_COLOUR: NDArray[np.float32] = np.array([1, 1, 1], dtype=np.float32)

# Ranges of the face that a mirror turns round (300-W counts across the face).
_FACE_TURNED = ((0, 17), (17, 27), (31, 36), (48, 55), (55, 60), (60, 65), (65, 68))
# In the eyes, which go round, each pair by itself: corners, upper lid, lower lid.
_EYE_PAIRS = ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))


def flip_order(skeleton: str) -> tuple[int, ...]:
    """Where each keypoint comes from in a mirrored picture: `keypoints[..., flip_order(name), :]`
    with x mirrored puts the person's left and right back in their places.

    Applied twice it changes nothing. `skeleton` is a key of `SKELETONS`.
    """
    names = SKELETONS[skeleton]
    other_side = {"l": "r", "r": "l"}
    swapped = (
        f"{other_side[name[0]]}{name[1:]}" if name[:2] in ("l_", "r_") else name for name in names
    )
    order = [names.index(name) for name in swapped]
    if len(order) > FACE.start:
        order[FACE] = [FACE.start + index for index in _face_flip_order()]
    return tuple(order)


def _face_flip_order() -> list[int]:
    order = list(range(len(FACE_68)))
    for start, stop in _FACE_TURNED:
        order[start:stop] = reversed(range(start, stop))
    for right, left in _EYE_PAIRS:
        order[right], order[left] = left, right
    return order


def from_coco_wholebody(keypoints: NDArray[np.floating]) -> NDArray[np.float32]:
    """COCO-WholeBody (..., 133, 3) -> "openpose18_hands_face" (..., 128, 3); the neck as in
    `from_named`. The feet have no place there."""
    assert keypoints.shape[-2:] == (_WHOLE_BODY, 3), keypoints.shape
    parts = [
        from_coco17(keypoints[..., : len(COCO_17), :]),
        keypoints[..., _WHOLE_BODY_HANDS, :].astype(np.float32),
        keypoints[..., _WHOLE_BODY_FACE, :].astype(np.float32),
    ]
    return np.concatenate(parts, axis=-2)


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
