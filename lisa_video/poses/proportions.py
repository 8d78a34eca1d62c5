"""How long a person's limbs are, told from a whole sequence.

A limb that points at the camera looks short, and never long: its length is near the longest that is
seen of it, and right and left, which are alike, are seen together.

Shape legend: F frames, K keypoints of any of `SKELETONS`. Limbs are numbered by the joint at their
far end: limb k goes from `parents(K)[k]` to joint k.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lisa_video.poses.skeletons import (
    FACE,
    HAND_LIMBS,
    LEFT_HAND,
    LIMBS,
    OPENPOSE_18,
    RIGHT_HAND,
    SKELETONS,
)

NECK, NOSE = OPENPOSE_18.index("neck"), OPENPOSE_18.index("nose")
HEAD = [OPENPOSE_18.index(name) for name in ("r_eye", "l_eye", "r_ear", "l_ear")]
ANKLES = [OPENPOSE_18.index("r_ankle"), OPENPOSE_18.index("l_ankle")]

SURE = 0.3
"""Confidence from which on a joint is measured, where there are any such."""
_LONGEST = (
    0.9  # quantile over frames that stands for the longest: above it lie the detector's slips
)

STATURE = ("neck-nose", "neck-hip", "hip-knee", "knee-ankle")
"""Limbs from the nose to the foot, whose lengths add up to a person's stature."""

AVERAGE = {
    "neck-nose": 0.12,
    "neck-shoulder": 0.13,
    "shoulder-elbow": 0.2,
    "elbow-wrist": 0.16,
    "neck-hip": 0.34,
    "hip-knee": 0.27,
    "knee-ankle": 0.27,
}
"""Lengths of an adult's limbs as shares of the stature, rounded from the segment lengths of Drillis
and Contini (1966): they stand in for limbs that a driver never shows."""


@lru_cache(maxsize=len(SKELETONS))
def parents(joints: int) -> tuple[int, ...]:
    """The joint that each of K joints hangs on, nearer to the neck, whose own is -1. Hands hang on
    the wrists, fingers on the hand, the points of a face on the nose."""
    found = [-1] * joints
    for start, end in LIMBS:
        found[end] = start
    hands = ((LEFT_HAND, OPENPOSE_18.index("l_wrist")), (RIGHT_HAND, OPENPOSE_18.index("r_wrist")))
    for hand, wrist in hands if joints >= RIGHT_HAND.stop else ():
        found[hand.start] = wrist
        for start, end in HAND_LIMBS:
            found[hand.start + end] = hand.start + start
    if joints >= FACE.stop:
        found[FACE] = [NOSE] * (FACE.stop - FACE.start)
    return tuple(found)


@lru_cache(maxsize=len(SKELETONS))
def outwards(joints: int) -> tuple[int, ...]:
    """All joints, each after the one that it hangs on."""
    order = [NECK, *(end for _, end in LIMBS)]
    # Fingers are numbered from the palm outwards.
    return tuple(order + list(range(len(order), joints)))


def limb_name(joint: int) -> str:
    """Name of the limb that ends at a joint of the body, such as "elbow-wrist" for both sides."""
    names = OPENPOSE_18[parents(len(OPENPOSE_18))[joint]], OPENPOSE_18[joint]
    return "-".join(name.removeprefix("r_").removeprefix("l_") for name in names)


def limb_lengths(keypoints: NDArray[np.floating]) -> NDArray[np.float64]:
    """Length in pixels of each limb of one person.

    Args:
        keypoints: (F, K, 3).

    Returns:
        float64 (K,); NaN for limbs whose ends are never seen together, and for the neck, which has
        none. Right and left are the same.
    """
    joints = keypoints.shape[1]
    places, sure = keypoints[..., :2].astype(np.float64), surely(keypoints)
    lengths = np.full(joints, np.nan)
    for joint in range(joints):
        seen = [
            np.linalg.norm(places[:, end] - places[:, start], axis=-1)[
                sure[:, end] & sure[:, start]
            ]
            for end in {joint, _twins(joints)[joint]}
            if (start := parents(joints)[end]) >= 0
        ]
        samples = np.concatenate([*seen, np.zeros(0)])
        if len(samples):
            lengths[joint] = np.quantile(samples, _LONGEST)
    # The root of a hand lies on the wrist: a length of 0 is none.
    return np.where(lengths > 0, lengths, np.nan)


def surely(keypoints: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Joints (F, K) of (F, K, 3) that are sure enough to be measured; where a sequence has none that
    are sure, all that are there."""
    confidence = keypoints[..., 2]
    least = min(SURE, float(confidence.max(initial=0)))
    return (confidence > 0) & (confidence >= least)


@lru_cache(maxsize=len(SKELETONS))
def _twins(joints: int) -> tuple[int, ...]:
    """The joint of the same name on the other side; itself for those in the middle and the face."""
    names = next(names for names in SKELETONS.values() if len(names) == joints)
    swapped = {"r_": "l_", "l_": "r_"}
    return tuple(names.index(swapped.get(name[:2], name[:2]) + name[2:]) for name in names)
