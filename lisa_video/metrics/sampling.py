"""Which frames of a video make a clip."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError

Start = Literal["first", "middle", "random"]
ShortVideos = Literal["error", "skip", "pad"]


@dataclass(frozen=True)
class ClipSampling:
    """Which clips are taken from a video, by its true frames: nothing is re-timed."""

    frames: int = 16
    """Frames of a clip."""
    stride: int = 1
    """From one frame of the clip to the next, in frames of the video."""
    clips: int = 1
    """Clips per video; 0 takes every window, `step` frames apart."""
    step: int = 1
    """From one window to the next, in frames of the video; only where `clips` is 0."""
    start: Start = "first"
    """Where the clips lie. first: at the start, or evenly spread from there to the end. middle: in
    the middle of as many equal parts. random: drawn by seed and the video's name, all different."""
    short: ShortVideos = "error"
    """What happens to a video that is too short. error: stop. skip: leave it out and say so. pad:
    repeat its last frame and say so."""
    seed: int = 0
    """Of random starts."""

    def __post_init__(self) -> None:
        at_least(1, frames=self.frames, stride=self.stride, step=self.step)
        if self.clips < 0:
            raise UserError(f"clips={self.clips}: must not be negative")

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last of a clip."""
        return (self.frames - 1) * self.stride + 1

    def indices(self, count: int, name: str) -> list[list[int]] | None:
        """Frame indices of each clip of a video of `count` frames; None where it is too short.

        With `short="pad"` indices past the end become the last frame's.
        """
        padded = max(count, self.span) if self.short == "pad" else count
        starts = self._starts(padded - self.span + 1, name)
        if not starts:
            return None
        last = count - 1
        return [
            [min(start + index * self.stride, last) for index in range(self.frames)]
            for start in starts
        ]

    def _starts(self, places: int, name: str) -> list[int]:
        """First frames of the clips among `places` possible ones; none where they do not fit."""
        if places < max(self.clips, 1):
            return []
        if not self.clips:
            return list(range(0, places, self.step))
        if self.start == "random":
            # By name: a video's clips do not depend on which others are in the folder.
            random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            return sorted(random.choice(places, self.clips, replace=False).tolist())
        if self.start == "middle":
            return [(2 * part + 1) * places // (2 * self.clips) for part in range(self.clips)]
        if self.clips == 1:
            return [0]
        return [part * (places - 1) // (self.clips - 1) for part in range(self.clips)]
