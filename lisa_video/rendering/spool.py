"""Generated clips on disk, so that however long and many they are only a frame is held in memory.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SpooledClip:
    """One clip as the bytes of its frames, one after the other."""

    path: Path
    shape: tuple[int, ...]
    """(F, H, W, 3)."""

    def frame(self, number: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3)."""
        size = math.prod(self.shape[1:])
        pixels = np.fromfile(self.path, np.uint8, size, offset=number * size)
        return pixels.reshape(self.shape[1:])

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """All frames, one by one."""
        return (self.frame(number) for number in range(self.shape[0]))


class ClipSpool:
    """Clips by label and prompt, in a folder that its owner removes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clips: dict[tuple[str, str], SpooledClip] = {}

    def add(self, label: str, prompt: str, frames: Iterable[NDArray[np.uint8]]) -> SpooledClip:
        """Keep frames, uint8 (H, W, 3) and all of one size, as they come."""
        path = self._folder / f"clip_{len(self._clips)}"
        shape: tuple[int, ...] = ()
        count = 0
        with path.open("wb") as file:
            for frame in frames:
                assert shape in ((), frame.shape) and frame.dtype == np.uint8, frame.shape
                shape, count = frame.shape, count + 1
                file.write(np.ascontiguousarray(frame).data)
        self._clips[label, prompt] = SpooledClip(path, (count, *shape))
        return self._clips[label, prompt]

    def clip(self, label: str, prompt: str) -> SpooledClip:
        """What was kept."""
        return self._clips[label, prompt]
