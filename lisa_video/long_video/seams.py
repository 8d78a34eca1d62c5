"""How much a long video flickers at its seams, against elsewhere.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def seam_flicker(
    changes: NDArray[np.float64], seams: Iterable[int], others: Iterable[int]
) -> SeamFlicker:
    """Flicker where a frame of `seams` follows on the one before it, and where one of `others` does
    that is no seam.

    `changes` is what `frame_changes` makes of F frames. Where a VAE compresses time, `others` should
    be the first frames of latent frames: seams lie there as well, and from one latent frame to the
    next there is more change than within. Raises UserError where one of both is empty.
    """
    inside = range(1, len(changes) + 1)
    seam_frames = {frame for frame in seams if frame in inside}
    other_frames = {frame for frame in others if frame in inside} - seam_frames
    if not seam_frames or not other_frames:
        raise UserError(
            f"seam flicker: {len(seam_frames)} seams and {len(other_frames)} other places in "
            f"{len(changes) + 1} frames, there must be some of both"
        )
    at_seams, elsewhere = (
        float(np.mean([changes[frame - 1] for frame in sorted(frames)]))
        for frames in (seam_frames, other_frames)
    )
    return SeamFlicker(at_seams, elsewhere)
