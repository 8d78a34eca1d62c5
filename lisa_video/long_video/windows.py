"""Windows over a video of any length: where they lie at each step, and how they are blended.

Every window has the backbone's own length and lies inside the video; none wraps around. From step to
step the windows move, so that each place is a seam at few steps and well inside a window at others.

Shape legend: T latent frames of the video, W of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Window:
    """A range of latent frames, and what its prediction counts there."""

    start: int
    stop: int
    """Latent frame before which it ends."""
    weights: NDArray[np.float64]
    """(W,): those of all windows of a step sum to one at each latent frame."""


@dataclass(frozen=True)
class WindowPlan:
    """How windows of `length` cover `frames` latent frames; neighbours share at least `overlap`.

    The first `lead` frames of a window that does not start the video are only looked at: for a
    backbone whose VAE compresses time, a clip's first latent frame is a single picture, which it is
    nowhere but at the start of the video.
    """

    frames: int
    """T."""
    length: int
    """W; a shorter video has one window, of its own length."""
    overlap: int
    """At least `lead`, below `length`."""
    lead: int = 0

    def __post_init__(self) -> None:
        assert self.frames >= 1 and 0 <= self.lead <= self.overlap < self.length, self

    @property
    def stride(self) -> int:
        """Most latent frames from the start of a window to that of the next."""
        return self.length - self.overlap

    def starts(self, step: int) -> list[int]:
        """First latent frames of the windows at a denoising step, in order.

        A regular grid, moved by a phase that takes each of its `stride` values once before any
        again, and whose ends are moved into the video.
        """
        last = max(0, self.frames - self.length)
        phase = step * _jump(self.stride) % self.stride
        grid = range(-phase, last + self.stride, self.stride)
        return sorted({min(max(start, 0), last) for start in grid})

    def windows(self, step: int) -> list[Window]:
        """The windows at a denoising step, in order, with weights that sum to one everywhere."""
        starts = self.starts(step)
        raw = [self._weights(start) for start in starts]
        total = np.zeros(self.frames)
        for start, weights in zip(starts, raw, strict=True):
            total[start : start + len(weights)] += weights
        return [
            Window(start, start + len(weights), weights / total[start : start + len(weights)])
            for start, weights in zip(starts, raw, strict=True)
        ]

    def seams(self, step: int) -> list[int]:
        """Latent frames at which a window begins or has ended, at a denoising step, in order."""
        windows = self.windows(step)
        edges = {window.start for window in windows} | {window.stop for window in windows}
        return sorted(edges - {0, self.frames})

    def _weights(self, start: int) -> NDArray[np.float64]:
        """Rising over the overlap and falling again, not yet normalised."""
        length = min(self.length, self.frames)
        lead = self.lead if start else 0
        place = np.arange(length, dtype=np.float64)
        rising, falling = place + 1 - lead, length - place
        return np.clip(np.minimum(rising, falling), 0, self.overlap + 1)


def _jump(stride: int) -> int:
    """The step of the phase: near the golden section, and coprime to the stride."""
    golden = round(stride * (math.sqrt(5) - 1) / 2)
    return next(
        jump
        for distance in range(stride + 1)
        for jump in (golden + distance, golden - distance)
        if jump >= 1 and math.gcd(jump, stride) == 1
    )
