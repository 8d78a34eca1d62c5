"""Shots of a video, and the clips that they are split into.

Shape legend: H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.extraction_config import ClipsConfig, ShotsConfig

_ANY_RATE = 25.0  # frames are counted, which no rate changes
_WIDTH = 256  # pixels of frames that are compared, as in PySceneDetect's own reader
_BORDER = 5  # frames at both ends of a video at which no cut is looked for


@dataclass(frozen=True)
class Span:
    """Frames `start` to `stop`, which is left out."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def find_shots(frames: Iterable[NDArray[np.uint8]], config: ShotsConfig) -> list[Span]:
    """The shots of a video, one after the other without gaps.

    Args:
        frames: all of them, uint8 RGB (H, W, 3); one is held at a time.
        config: what counts as a cut.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(
        adaptive_threshold=config.threshold,
        min_scene_len=_BORDER,
        min_content_val=config.min_change,
    )
    cuts: list[int] = []
    count = 0
    for frame in frames:
        found = detector.process_frame(FrameTimecode(count, _ANY_RATE), _small_bgr(frame))
        cuts += [cut.frame_num for cut in found]
        count += 1
    return [Span(*ends) for ends in pairwise([0, *cuts, count])]


def split_shot(shot: Span, config: ClipsConfig) -> list[Span]:
    """Parts of a shot, equal but for one frame and none longer than `max_frames`."""
    parts = -(-len(shot) // config.max_frames)
    ends = [shot.start + len(shot) * part // parts for part in range(parts + 1)]
    return [Span(*pair) for pair in pairwise(ends)]


def split_shots(shots: Iterable[Span], config: ClipsConfig) -> Iterator[Span]:
    """Parts of all shots, also those that are too short, in order."""
    for shot in shots:
        yield from split_shot(shot, config)


def _small_bgr(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    if width > _WIDTH:
        size = (_WIDTH, max(1, round(height * _WIDTH / width)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.ascontiguousarray(frame[..., ::-1])
