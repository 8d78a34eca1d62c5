"""What a pose detector does.

Shape legend: F frames, P people, H W pixels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PoseDetector(Protocol):
    """Finds the OpenPose-18 keypoints of the people in a video."""

    name: str
    """Says in results and pose files which detector looked."""

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find people in the frames of one video.

        Args:
            frames: uint8 RGB (F, H, W, 3), in the order of time.

        Returns:
            float32 (F, P, 18, 3): x, y in pixels of the frames (continuous coordinates) and
            confidence in [0, 1]; a person missing in a frame has zeros there.
        """
        ...
