"""Frames of a source, be it a video or a folder of images.

Shape legend: H W pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import iter_images, probe_clip
from lisa_video.errors import UserError
from lisa_video.extraction.records import Source
from lisa_video.video import VideoError, VideoInfo, iter_frames, probe_video


def probe_source(source: Source) -> VideoInfo:
    """Frames, size and rate; VideoError where it cannot be read, as in `probe_video`."""
    if source.image_fps is None:
        return probe_video(source.path)
    try:
        info = probe_clip(source.path)
    except UserError as error:
        raise VideoError(str(error)) from None
    return VideoInfo(info.frames, info.width, info.height, source.image_fps)


def source_frames(source: Source) -> Generator[NDArray[np.uint8], None, None]:
    """Frames, uint8 (H, W, 3), one by one; VideoError where one cannot be read."""
    if source.image_fps is None:
        yield from iter_frames(source.path)
        return
    try:
        yield from iter_images(source.path)
    except UserError as error:
        raise VideoError(str(error)) from None
