"""Generated clips on disk, so that however many there are only one is held in memory.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ClipSpool:
    """Clips by label and prompt, in a folder that its owner removes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clips: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def add(
        self, label: str, prompt: str, frames: Iterable[NDArray[np.uint8]], count: int
    ) -> NDArray[np.uint8]:
        """Keep `count` frames, uint8 (H, W, 3); returns (F, H, W, 3), mapped from the file."""
        path = self._folder / f"{len(self._clips)}.npy"
        clip: NDArray[np.uint8] | None = None
        for number, frame in enumerate(frames):
            if clip is None:
                clip = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *frame.shape))
            clip[number] = frame
        assert clip is not None and number == count - 1, (number, count)
        self._clips[label, prompt] = clip
        return clip

    def frame(self, label: str, prompt: str, number: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), copied into memory."""
        return np.array(self._clips[label, prompt][number])
