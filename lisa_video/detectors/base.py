"""What a pose detector does.

Shape legend: F frames, P people, K keypoints of the detector's skeleton, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PoseDetector(Protocol):
    """Finds the keypoints of the people in a video."""

    name: str
    """Says in results and pose files which detector looked."""
    skeleton: str
    """Which keypoints it finds; a key of `SKELETONS`."""

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find people in the frames of one video.

        Args:
            frames: uint8 RGB (F, H, W, 3), in the order of time.

        Returns:
            float32 (F, P, K, 3): x, y in pixels of the frames (continuous coordinates) and
            confidence in [0, 1]; a person missing in a frame has zeros there.
        """
        ...

    def stream(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """The same frame by frame, for videos too long to be held: frames uint8 RGB (H, W, 3) in
        the order of time -> the people of each, float32 (P, K, 3) with P of its own."""
        ...


def pad_people(frames: Sequence[NDArray[np.float32]], joints: int) -> NDArray[np.float32]:
    """People of each frame, (P, K, 3) with P of its own and K = `joints`, -> (F, P, K, 3) with
    zeros for nobody."""
    most = max((len(people) for people in frames), default=0)
    padded = np.zeros((len(frames), most, joints, 3), np.float32)
    for place, people in zip(padded, frames, strict=True):
        place[: len(people)] = people
    return padded
