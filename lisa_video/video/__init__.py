"""Videos in and out: exact frames by decord or PyAV, and H.264 that browsers play.

A video's frames are the pictures that a player shows, in that order: rotated as the file asks for
(phones store portrait videos lying down), without what an edit list cuts off, converted to RGB with
the matrix and range that the file names. They are never re-timed, and pixels that are not square
are left as they are.
"""

from lisa_video.video.inspection import VideoError
from lisa_video.video.reading import (
    Video,
    VideoBackend,
    VideoInfo,
    count_frames,
    iter_frames,
    iter_frames_at,
    probe_video,
    read_video,
)
from lisa_video.video.writing import VideoWriter, even_size, write_video

__all__ = [
    "Video",
    "VideoBackend",
    "VideoError",
    "VideoInfo",
    "VideoWriter",
    "count_frames",
    "even_size",
    "iter_frames",
    "iter_frames_at",
    "probe_video",
    "read_video",
    "write_video",
]
