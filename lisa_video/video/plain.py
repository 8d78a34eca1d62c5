"""Which files need not be encoded anew."""

from __future__ import annotations

from pathlib import Path

import av

from lisa_video.video.inspection import inspect, open_video, video_stream


def is_plain_mp4(path: Path) -> bool:
    """Whether a video is such as `VideoWriter` makes: H.264 in an mp4, yuv420p, of even size, shown
    as it lies, with nothing cut off by an edit list. There may be sound.

    Raises:
        VideoError: it cannot be read.
    """
    if path.suffix != ".mp4" or not inspect(path, lambda: None).countable:
        return False
    with open_video(path) as container:
        stream = video_stream(container)
        codec = stream.codec_context
        if container.format.name.split(",")[0] != "mov" or codec.name != "h264":
            return False
        if codec.pix_fmt != "yuv420p" or codec.width % 2 or codec.height % 2:
            return False
        try:
            return next(container.decode(stream)).rotation == 0
        except (av.FFmpegError, StopIteration):
            return False
