"""Windows in time: which frames of a clip make a window, by stride and by frames a second.

Places are counted in frames of the video, as if these were evenly spaced. Where a rate is wanted,
the frame at time t is the nearest one, so it is shown within half a frame's time of t.

Shape legend: N clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def frame_at(place: int, step: float) -> int:
    """Video frames from the start of a window to its frame number `place`."""
    return math.floor(place * step + 0.5)


def window_span(frames: int, step: float) -> int:
    """Video frames from the first to the last of a window, both included."""
    return frame_at(frames - 1, step) + 1


@dataclass(frozen=True)
class WindowRule:
    """How a window of a clip may be spaced."""

    strides: range
    """From one frame of the window to the next: in frames of the video, or of one of `fps`."""
    fps: float | None = None
    """Frames a second that strides count in; None: the video's own."""

    def step(self, clip_fps: float, stride: int) -> float:
        """Video frames from one frame of a window to the next."""
        return float(stride) if self.fps is None else stride * clip_fps / self.fps

    def fitting(self, frames: int, clip_frames: int, clip_fps: float) -> list[int]:
        """Strides with which a clip holds a window, and the window no frame twice."""
        spans = {each: window_span(frames, self.step(clip_fps, each)) for each in self.strides}
        return [stride for stride, span in spans.items() if frames <= span <= clip_frames]

    def fits(
        self, frames: int, clip_frames: NDArray[np.integer], clip_fps: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether `fitting` finds a stride, for each of N clips: (N,)."""
        fits = np.zeros(len(clip_frames), bool)
        for stride in self.strides:
            # The formulas of `step` and `frame_at`, to the last bit.
            step = np.float64(stride) if self.fps is None else stride * clip_fps / self.fps
            span = np.floor((frames - 1) * step + 0.5) + 1
            fits |= (frames <= span) & (span <= clip_frames)
        return fits

    def why_not(self, frames: int, clip_frames: int, clip_fps: float) -> str:
        """What keeps a clip without a fitting stride from holding a window, for a message."""
        window = f"a window of {frames} frames with stride"
        for stride in self.strides:
            span = window_span(frames, self.step(clip_fps, stride))
            if span >= frames:
                rate = "" if self.fps is None else f" at {self.fps:g} of {clip_fps:g} fps"
                return f"has {clip_frames} frames, {window} {stride}{rate} needs {span}"
        return (
            f"has {clip_fps:g} fps, {window} {self.strides[-1]} at {self.fps:g} fps would repeat "
            "some of its frames"
        )
