"""Videos in: all frames, some of them, or one after the other.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lisa_video.video.guard import Counted, Frame, decode_guarded
from lisa_video.video.worker import Decoder

VideoBackend = Literal["auto", "decord", "pyav"]

_DECODERS: dict[VideoBackend, list[Decoder]] = {
    "auto": ["decord", "pyav"],
    "decord": ["decord"],
    "pyav": ["pyav"],
}


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
    (counted,) = decode_guarded(path, ["pyav"], indices=[])
    assert isinstance(counted, Counted)
    return counted.pictures


def probe_video(path: Path) -> VideoInfo:
    """Frames, size and rate of a video; only its first frame is decoded.

    Raises:
        VideoError: no such file, empty, not a video, without pictures, truncated, or its first
            frame cannot be decoded, or decoding hung or crashed; the message names the file.
    """
    counted, first = decode_guarded(path, ["pyav"], indices=[0])
    assert isinstance(counted, Counted) and isinstance(first, Frame)
    height, width = first.pixels.shape[:2]
    return VideoInfo(counted.pictures, width, height, counted.fps)


def read_video(
    path: Path, indices: Sequence[int] | None = None, *, backend: VideoBackend = "auto"
) -> Video:
    """Decode all frames, or those at `indices` in the order given.

    Before any decoder is tried all packets are read, which is quick: decord can hang on broken
    files, and some sound ones it reads wrongly. "auto" takes decord where it is installed and
    exact, and else PyAV; both give the same frames. All of it runs in a process of its own that is
    stopped when it stands still for `$LISA_VIDEO_DECODE_SECONDS`, 20 without it.

    Two kinds of damage do not show: inside a picture, where its codec does not notice it or decord
    does not tell; and a missing end in a container that declares neither frames nor duration
    (MPEG-TS, GIF).

    Args:
        path: of the video.
        indices: frames to read, counted from 0; they may repeat.
        backend: "decord" and "pyav" insist on one.

    Raises:
        VideoError: as in `probe_video`; a frame cannot be decoded; an index lies outside of the
            video; decord is asked for and missing, or not exact for this file.
    """
    wanted = None if indices is None else [int(index) for index in indices]
    assert wanted is None or wanted, "no frame asked for"
    batch = _Batch()
    for found in decode_guarded(path, _DECODERS[backend], indices=wanted, place=batch.place):
        if isinstance(found, Counted):
            counted = found
            batch.expect(range(counted.pictures) if wanted is None else wanted)
    return Video(batch.frames(), counted.fps)


def iter_frames(path: Path, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Frames `start` to `stop` (which is left out) one by one, uint8 (H, W, 3), by PyAV.

    One frame is held at a time, however long the video is; the next ones are decoded meanwhile, in
    a process of their own that is guarded as in `read_video`.

    Args:
        path: of the video.
        start: first frame, counted from 0.
        stop: frame to end before; None goes on to the end.

    Raises:
        VideoError: as in `read_video`, those of the file and of `start` and `stop` with the first
            frame; a frame that cannot be decoded ends the iteration where it is.
    """
    for found in decode_guarded(path, ["pyav"], start=start, stop=stop):
        if isinstance(found, Frame):
            yield found.pixels


def iter_frames_at(path: Path, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """The frames at `indices`, which never fall and may repeat, one by one as in `iter_frames`.

    Raises:
        VideoError: as in `read_video`.
    """
    assert list(indices) == sorted(indices), "indices fall"
    places = iter(indices)
    place = next(places, -1)
    for found in decode_guarded(path, ["pyav"], indices=sorted(set(indices))):
        while isinstance(found, Frame) and found.number == place:
            yield found.pixels
            place = next(places, -1)


class _Batch:
    """Memory for frames that come one by one, which is had when the first one tells its size."""

    def expect(self, numbers: Sequence[int]) -> None:
        """Frames wanted, in any order."""
        self._wanted = numbers
        self._places = {number: place for place, number in enumerate(sorted(set(numbers)))}
        self._memory: NDArray[np.uint8] | None = None

    def place(self, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory for a frame."""
        if self._memory is None:
            self._memory = np.empty((len(self._places), *shape), np.uint8)
        return self._memory[self._places[number]]

    def frames(self) -> NDArray[np.uint8]:
        """(F, H, W, 3) in the order wanted; copied where the file has another."""
        assert self._memory is not None
        places = [self._places[number] for number in self._wanted]
        return self._memory if places == list(range(len(places))) else self._memory[places]
