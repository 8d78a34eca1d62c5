"""Clips seen in a mirror: pixels, poses and captions.

Shape legend: F frames, P people, K keypoints, H W pixels.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import flip_order

_SIDE = re.compile(r"\b(left|right)(?=(?:most|wards?|handed)?\b)", re.IGNORECASE)
# Either word in a sense that a mirror does not turn, or a turn that other words name.
_NO_SIDE = re.compile(
    r"\b(?:all|just) right\b"
    r"|\bright(?: now| away| before| after| behind| between| beside| above| below| under| at| in"
    r"| next| here| there| angles?)\b"
    r"|\b(?:has|have|had|having|just|who|and|then) left\b"
    r"|\bleft (?:behind|over|alone|open|out)\b|\bleftovers?\b"
    r"|clockwise",
    re.IGNORECASE,
)


def mirrored_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (F, H, W, 3), left and right exchanged."""
    return np.ascontiguousarray(frames[:, :, ::-1])


def mirrored_poses(poses: PoseSequence) -> PoseSequence:
    """The poses of mirrored frames: who raised the left arm now raises the right one."""
    keypoints = poses.keypoints[:, :, list(flip_order(poses.skeleton))]
    found = keypoints[..., 2] > 0
    keypoints[..., 0] = np.where(found, poses.width - keypoints[..., 0], 0)
    return replace(poses, keypoints=keypoints)


def can_mirror(caption: str) -> bool:
    """False where "left" or "right" may mean no side, as in "right now" or "has left".

    English only: other languages' words for the sides are not known here.
    """
    return _NO_SIDE.search(caption) is None


def mirrored_caption(caption: str) -> str:
    """The caption with the words left and right exchanged, also in "left-hand" or "rightmost"."""
    return _SIDE.sub(lambda match: _as_written(match[1]), caption)


def _as_written(side: str) -> str:
    """The other side, in capitals where the word was."""
    other = "right" if side.lower() == "left" else "left"
    if side.isupper():
        return other.upper()
    return other.capitalize() if side[0].isupper() else other
