"""Generated clips on disk, so that however many there are only one is held in memory.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ClipSpool:
    """Clips by label and prompt, in a folder that its owner removes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clips: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def add(self, label: str, prompt: str, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Keep uint8 (F, H, W, 3); returns the same, mapped from the file."""
        path = self._folder / f"{len(self._clips)}.npy"
        np.save(path, frames)
        mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        self._clips[label, prompt] = mapped
        return mapped

    def frame(self, label: str, prompt: str, number: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), copied into memory."""
        return np.array(self._clips[label, prompt][number])
