"""Frames of a video by decord or by PyAV, in the process that calls.

Both are generators over `wanted`, frame numbers that rise, and give (number, frame), frames being
uint8 (H, W, 3). `alive` is called after each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lisa_video.video.inspection import (
    Alive,
    Contents,
    FrameIndex,
    KeyFrame,
    VideoError,
    open_video,
    video_stream,
)

Numbered = tuple[int, NDArray[np.uint8]]

_BATCH = 8  # frames taken from decord at a time


class Inexact(Exception):
    """This way of decoding cannot give the frames, or not for sure; another may."""


def decode_decord(
    path: Path, contents: Contents, wanted: Sequence[int], alive: Alive
) -> Iterator[Numbered]:
    """Frames by decord.

    Not for a user's process: decord can hang and abort on broken files, and it puts its zlib of
    2005 in front of that of libraries loaded after it, so that OpenCV writes unreadable PNG files.

    Raises:
        Inexact: decord is missing, fails, or is not exact for this file.
    """
    if not contents.countable:
        raise Inexact
    try:
        import decord
    except ImportError:
        raise Inexact from None
    decord.logging.set_level(decord.logging.QUIET)  # PyAV says what is wrong
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        if len(reader) != contents.pictures:
            raise Inexact
        for start in range(0, len(wanted), _BATCH):
            numbers = list(wanted[start : start + _BATCH])
            # Not `reader[number]`, which gives narrow frames a wrong shape.
            frames = reader.get_batch(numbers).asnumpy()
            alive()
            yield from zip(numbers, frames, strict=True)
    except (decord.DECORDError, RuntimeError):
        raise Inexact from None


def decode_pyav(
    path: Path, contents: Contents, wanted: Sequence[int], alive: Alive
) -> Iterator[Numbered]:
    """Frames by PyAV: from the key frame before each where that is exact, and else from the start.

    Raises:
        VideoError: a frame cannot be decoded, or only with guesses.
    """
    given, reformatter = 0, VideoReformatter()
    if contents.index is not None:
        try:
            for numbered in _decode_by_index(path, contents.index, wanted, alive, reformatter):
                yield numbered
                given += 1
            return
        except (Inexact, av.FFmpegError):
            pass  # Where it is the file that is broken, decoding from the start tells.
    yield from _decode_from_start(path, wanted[given:], alive, reformatter)


def _decode_by_index(
    path: Path,
    index: FrameIndex,
    wanted: Sequence[int],
    alive: Alive,
    reformatter: VideoReformatter,
) -> Iterator[Numbered]:
    with open_video(path) as container:
        video_stream(container).thread_type = "AUTO"
        pictures = _decode_from(container, index, index.keys[0], seek=False)
        following = 0  # frame that `pictures` gives next
        for number in wanted:
            key = index.key_before(number)
            if key.first > following:
                pictures, following = _decode_from(container, index, key), key.first
            for found, picture in pictures:
                alive()
                following = found + 1
                if found == number:
                    yield number, _upright(picture, reformatter)
                    break
            else:
                raise Inexact


def _decode_from(
    container: InputContainer, index: FrameIndex, key: KeyFrame, *, seek: bool = True
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Pictures shown from a key frame on, or from one before it; raises Inexact at any doubt."""
    stream = video_stream(container)
    if seek:
        container.seek(key.start, stream=stream)
    expected: int | None = None
    for packet in container.demux(stream):
        if packet.size and expected is None:
            expected = _landing(index, key, packet)
        for picture in packet.decode():
            assert isinstance(picture, av.VideoFrame)
            number = None if picture.pts is None else index.numbers.get(picture.pts)
            if number is None or expected is None or picture.is_corrupt:
                raise Inexact
            if number < expected:
                continue  # leads an open group of pictures, whose reference was not decoded
            if number > expected:
                raise Inexact
            yield number, picture
            expected += 1


def _landing(index: FrameIndex, key: KeyFrame, packet: av.Packet[Any]) -> int:
    """First frame that can be decoded from a packet, which must be a key frame not after `key`."""
    place = None if packet.pts is None else index.places.get(packet.pts)
    for landed in reversed(index.keys):
        if landed.place == place and landed.place <= key.place:
            return landed.first
    raise Inexact


def _decode_from_start(
    path: Path, wanted: Sequence[int], alive: Alive, reformatter: VideoReformatter
) -> Iterator[Numbered]:
    """Exact in every container; raises VideoError."""
    if not wanted:
        return
    ahead = iter(wanted)
    number, decoded = next(ahead), 0
    with open_video(path) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        try:
            for picture in container.decode(stream):
                alive()
                if picture.is_corrupt:
                    raise VideoError(f"{path}: frame {decoded} is damaged")
                if decoded == number:
                    yield decoded, _upright(picture, reformatter)
                    number = next(ahead, -1)
                    if number < 0:
                        return
                decoded += 1
        except av.FFmpegError as error:
            raise VideoError(
                f"{path}: frame {decoded} cannot be decoded: {error.strerror}"
            ) from None
    raise VideoError(f"{path}: only {decoded} frames can be decoded, the file is damaged")


def _upright(picture: av.VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """RGB of a picture, turned as the file asks for; one reformatter serves a whole file."""
    pixels = reformatter.reformat(picture, format="rgb24").to_ndarray()
    return np.rot90(pixels, picture.rotation // 90 % 4).astype(np.uint8, copy=False)
