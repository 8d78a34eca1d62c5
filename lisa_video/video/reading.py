"""Videos in: all frames, some of them, or one after the other.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lisa_video.video.decoding import Inexact, Numbered, decode_decord, decode_pyav
from lisa_video.video.inspection import Contents, VideoError, inspect

VideoBackend = Literal["auto", "decord", "pyav"]


@dataclass(frozen=True, eq=False)
class Video:
    """Decoded frames."""

    frames: NDArray[np.uint8]
    """(F, H, W, 3)."""
    fps: float
    """Average frames per second of the file."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: counted, not only declared."""

    frames: int
    width: int
    """Width in pixels as shown, after rotation; so is the height."""
    height: int
    fps: float


def count_frames(path: Path) -> int:
    """Frames of a video, counted from its packets without decoding; errors as in `probe_video`."""
    return _inspect(path).pictures


def probe_video(path: Path) -> VideoInfo:
    """Frames, size and rate of a video; only its first frame is decoded.

    Raises:
        VideoError: no such file, empty, not a video, without pictures, truncated, or its first
            frame cannot be decoded; the message names the file.
    """
    contents = _inspect(path)
    ((_, frame),) = decode_pyav(path, contents, [0], _ignore)
    return VideoInfo(contents.pictures, frame.shape[1], frame.shape[0], contents.fps)


def read_video(
    path: Path, indices: Sequence[int] | None = None, *, backend: VideoBackend = "auto"
) -> Video:
    """Decode all frames, or those at `indices` in the order given.

    Before any decoder is tried all packets are read, which is quick: decord can hang on broken
    files, and some sound ones it reads wrongly. "auto" takes decord where it is installed and
    exact, and else PyAV; both give the same frames.

    Two kinds of damage do not show: inside a picture, where its codec does not notice it; and a
    missing end in a container that declares neither frames nor duration (MPEG-TS, GIF).

    Args:
        path: of the video.
        indices: frames to read, counted from 0; they may repeat.
        backend: "decord" and "pyav" insist on one.

    Raises:
        VideoError: as in `probe_video`; a frame cannot be decoded; an index lies outside of the
            video; decord is asked for and missing, or not exact for this file.
    """
    contents = _inspect(path)
    wanted = list(range(contents.pictures) if indices is None else indices)
    assert wanted, "no frame asked for"
    for index in wanted:
        _check_index(path, contents, index)
    needed = sorted(set(wanted))
    frames = None
    if backend != "pyav":
        with suppress(Inexact):
            frames = dict(decode_decord(path, contents, needed, _ignore))
    if frames is None and backend == "decord":
        raise VideoError(f"{path}: decord is missing or cannot read this file exactly; use pyav")
    if frames is None:
        frames = dict(_same_size(path, decode_pyav(path, contents, needed, _ignore)))
    return Video(np.stack([frames[index] for index in wanted]), contents.fps)


def iter_frames(path: Path, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Frames `start` to `stop` (which is left out) one by one, uint8 (H, W, 3), by PyAV.

    One frame is held at a time, however long the video is.

    Args:
        path: of the video.
        start: first frame, counted from 0.
        stop: frame to end before; None goes on to the end.

    Raises:
        VideoError: as in `read_video`, those of the file and of `start` and `stop` with the first
            frame; a frame that cannot be decoded ends the iteration where it is.
    """
    contents = _inspect(path)
    stop = contents.pictures if stop is None else stop
    _check_index(path, contents, start)
    _check_index(path, contents, stop - 1)
    for _, frame in _same_size(path, decode_pyav(path, contents, range(start, stop), _ignore)):
        yield frame


def _inspect(path: Path) -> Contents:
    return inspect(path, _ignore)


def _check_index(path: Path, contents: Contents, index: int) -> None:
    if not 0 <= index < contents.pictures:
        raise VideoError(
            f"{path}: has no frame {index}, its frames are 0 to {contents.pictures - 1}"
        )


def _same_size(path: Path, frames: Iterator[Numbered]) -> Iterator[Numbered]:
    """The frames given; raises VideoError where they change their size."""
    size = None
    for number, frame in frames:
        found = (frame.shape[1], frame.shape[0])
        if size is not None and found != size:
            raise VideoError(f"{path}: its frames change their size, {size} and {found} pixels")
        size = found
        yield number, frame


def _ignore() -> None:
    pass
