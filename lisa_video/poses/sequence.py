"""Poses of a clip as they are stored: keypoints with confidence, and the video they belong to.

Shape legend: F frames, P people, K = 18 keypoints.

File format, version 1: an .npz archive without pickled objects, with the arrays `version` (1),
`keypoints` float32 (F, P, K, 3) and, without axes, `width`, `height`, `fps`, `skeleton`, `detector`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.poses.skeletons import OPENPOSE_18

FORMAT_VERSION = 1
SKELETON = "openpose18"
_ARRAYS = ("keypoints", "width", "height", "fps", "skeleton", "detector")


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Keypoints of a clip.

    Raises:
        UserError: when made with keypoints that `validate_keypoints` refuses, a size or frame rate
            that is not positive, or another skeleton.
    """

    keypoints: NDArray[np.float32]
    """(F, P, 18, 3) in OpenPose-18 order: x, y in pixels of the video, continuous (the centre of
    pixel i is i + 0.5), and confidence in [0, 1]; 0 is absent."""
    width: int
    """Width of the video in pixels."""
    height: int
    """Height of the video in pixels."""
    fps: float
    """Frames per second."""
    skeleton: str = SKELETON
    detector: str = "unknown"
    """Where the keypoints come from: a detector's name or "ground-truth"."""

    def __post_init__(self) -> None:
        _validate(self, "pose sequence")

    @classmethod
    def load(cls, path: Path, *, require_people: bool = False) -> PoseSequence:
        """Read a file that `save` wrote.

        Raises:
            UserError: the file is missing, unreadable, of another version, or holds values that
                are not valid (the message names the frame); with `require_people` also where no
                frame has a keypoint.
        """
        values = _read(path)
        sequence = object.__new__(cls)
        return sequence
