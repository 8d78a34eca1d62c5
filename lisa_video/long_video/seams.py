"""How much a long video flickers at its seams, against elsewhere.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError


@dataclass(frozen=True)
class SeamFlicker:
    """Mean absolute difference of neighbouring frames, pixels in [0, 1]."""

    at_seams: float
    elsewhere: float

    @property
    def ratio(self) -> float:
        """1 is a seam that cannot be told; infinite where all else stands still."""
        if self.elsewhere == 0:
            return float("inf") if self.at_seams else 1.0
        return self.at_seams / self.elsewhere


def frame_changes(frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Mean absolute difference of each frame, uint8 (H, W, 3), to the one before it: (F - 1,).

    Two frames are held at a time.
    """
    changes = [cv2.absdiff(before, after).mean() / 255 for before, after in pairwise(frames)]
    return np.asarray(changes, np.float64)


def seam_flicker(changes: NDArray[np.float64], seams: Sequence[int]) -> SeamFlicker:
    """Flicker where a frame of `seams` follows on the one before it, and everywhere else.

    `changes` is what `frame_changes` makes of F frames. Raises UserError where there is no seam
    among them, or nothing else.
    """
    at_seam = np.zeros(len(changes), bool)
    at_seam[[frame - 1 for frame in seams if 1 <= frame <= len(changes)]] = True
    if not at_seam.any() or at_seam.all():
        raise UserError(
            f"seam flicker: {int(at_seam.sum())} of {len(changes)} changes are at seams, there "
            "must be some at seams and some elsewhere"
        )
    return SeamFlicker(float(changes[at_seam].mean()), float(changes[~at_seam].mean()))
