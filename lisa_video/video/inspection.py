"""What a video file holds, told from its packets before anything is decoded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from lisa_video.errors import UserError

Alive = Callable[[], None]
"""Called after each step of long work, to tell that it goes on."""


class VideoError(UserError):
    """A video that cannot be read as it is."""


@dataclass(frozen=True)
class Packet:
    """One picture as the file stores it; times are in ticks of the stream."""

    start: int | None
    """When it is shown."""
    duration: int
    key: bool
    shown: bool
    """False where an edit list cuts it off."""


@dataclass(frozen=True)
class KeyFrame:
    """A place where decoding can begin."""

    place: int
    """Of its packet in the file, counted from 0."""
    start: int
    """When it is shown, in ticks."""
    first: int
    """The first frame that is shown with it or after it: what decoding from here gives."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Frames of a video by their times, for going to one without decoding all before it."""

    numbers: dict[int, int]
    """Frame shown at a time, in ticks."""
    places: dict[int, int]
    """Packet with a time."""
    frame_places: list[int]
    """Packet of each frame."""
    keys: list[KeyFrame]
    """In the order of the file and of their times."""

    def key_before(self, frame: int) -> KeyFrame:
        """The last key frame from which this frame can be decoded."""
        chosen = bisect_right(self.keys, frame, key=lambda key: key.first) - 1
        while chosen > 0 and self.keys[chosen].place > self.frame_places[frame]:
            chosen -= 1
        return self.keys[max(chosen, 0)]


@dataclass(frozen=True, eq=False)
class Contents:
    """What reading all packets tells."""

    pictures: int
    fps: float
    countable: bool
    """Whether decord gives the right picture for every index; see `_countable`."""
    index: FrameIndex | None
    """None where only decoding from the start is sure to be exact."""


def open_video(path: Path) -> InputContainer:
    """Container with a video stream; raises VideoError."""
    try:
        if not path.is_file():
            raise VideoError(f"{path}: {_what_else(path)}")
        if not path.stat().st_size:
            raise VideoError(f"{path}: the file is empty")
        # Absolute, so that FFmpeg takes no name for a protocol.
        container = av.open(str(path.absolute()))
    except PermissionError:
        raise VideoError(f"{path}: may not be read, its permissions forbid it") from None
    except (av.FFmpegError, UnicodeDecodeError):
        raise VideoError(f"{path}: not a video, or broken from its start") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be opened: {error.strerror}") from None
    problem = None
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        problem = "is an image, not a video"
    elif not _video_streams(container):
        problem = "has no video stream, only sound or other data"
    elif getattr(video_stream(container), "codec_context", None) is None:
        problem = "its pictures are coded in a way that FFmpeg does not know"
    if problem:
        container.close()
        raise VideoError(f"{path}: {problem}")
    return container


def _what_else(path: Path) -> str:
    """Why a path is no file."""
    if path.is_dir():
        return "is a folder, not a video"
    if path.is_symlink():
        return "its link leads nowhere" if not path.exists() else "no such video"
    return "is no ordinary file" if path.exists() else "no such video"


def video_stream(container: InputContainer) -> av.VideoStream:
    """The stream that players show."""
    return _video_streams(container)[0]


def _video_streams(container: InputContainer) -> list[av.VideoStream]:
    """Without the cover picture of a song."""
    cover = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def inspect(path: Path, alive: Alive) -> Contents:
    """Read all packets of a video; raises VideoError where pictures are missing."""
    with open_video(path) as container:
        stream, *others = _video_streams(container)
        kind = container.format.name
        _check_extent(path, stream)
        packets = _read_packets(path, container, stream, alive)
        rate = stream.average_rate
        pictures = sum(packet.shown for packet in packets)
        if not pictures or not rate:
            raise VideoError(f"{path}: its video stream has no frames")
        # In mp4 an edit list may leave declared frames out, and `_check_extent` was exact.
        if len(packets) < stream.frames and not kind.startswith("mov,"):
            raise VideoError(
                f"{path}: truncated, {len(packets)} of {stream.frames} frames are there"
            )
        _check_duration(path, stream, packets, rate)
        indexed = kind.startswith(("mov,", "matroska,")) and _keys_are_sure(stream, kind, packets)
        return Contents(
            pictures,
            float(rate),
            indexed and not others and _countable(packets),
            index_frames(packets) if indexed else None,
        )


def _read_packets(
    path: Path, container: InputContainer, stream: av.VideoStream, alive: Alive
) -> list[Packet]:
    """Packets in the order of the file; raises VideoError where one is not whole."""
    packets: list[Packet] = []
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError(f"{path}: truncated or damaged after {len(packets)} frames")
            if packet.size:
                duration = packet.duration or 0
                shown = not packet.is_discard
                packets.append(Packet(packet.pts, duration, packet.is_keyframe, shown))
            alive()
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: cannot be read after {len(packets)} frames: {error.strerror}"
        ) from None
    return packets


def _keys_are_sure(stream: av.VideoStream, kind: str, packets: Sequence[Packet]) -> bool:
    """Whether each picture called a key frame is one.

    An mp4 that lost its list of key frames calls all pictures so. The parsers of H.264 and VP9 know
    better, and decoding can then begin at a key frame; but the index, which decord goes by, does
    not.
    """
    keys = [packet.key for packet in packets]
    if stream.codec.intra_only or len(keys) == 1:
        return True
    if all(keys) and stream.codec.name not in ("h264", "vp9"):
        return False
    return kind.startswith("matroska,") or keys == [
        entry.is_keyframe for entry in stream.index_entries
    ]


def _countable(packets: Sequence[Packet]) -> bool:
    """Whether decord, which goes to a key frame and counts on from there, gets each picture right.

    So it does where all have a time stamp, an edit list cuts none off, and none that follows a key
    frame in the file is shown before it (an open group of pictures).
    """
    last_key = 0
    for packet in packets:
        if packet.start is None or not packet.shown:
            return False
        if packet.key:
            last_key = packet.start
        if packet.start < last_key:
            return False
    return True


def index_frames(packets: Sequence[Packet]) -> FrameIndex | None:
    """Times of the frames, or None where the packets do not tell them for sure.

    They do where each has a time of its own and key frames come in the order of their times.
    """
    places = {packet.start: place for place, packet in enumerate(packets)}
    if len(places) < len(packets) or None in places:
        return None
    times = sorted(packet.start for packet in packets if packet.shown and packet.start is not None)
    keys: list[KeyFrame] = []
    for place, packet in enumerate(packets):
        if packet.key and packet.start is not None:
            if keys and keys[-1].start >= packet.start:
                return None
            first = bisect_right(times, packet.start - 1)
            keys.append(KeyFrame(place, packet.start, first))
    if not keys or keys[0].place > 0:
        return None
    known = {start: place for start, place in places.items() if start is not None}
    return FrameIndex(
        {time: number for number, time in enumerate(times)},
        known,
        [known[time] for time in times],
        keys,
    )


def _check_extent(path: Path, stream: av.VideoStream) -> None:
    """Compare where the container's index says that pictures are with the size of the file."""
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    missing = end - path.stat().st_size
    if missing > 0:
        raise VideoError(f"{path}: truncated, {missing} bytes of its pictures are missing")


def _check_duration(
    path: Path, stream: av.VideoStream, packets: list[Packet], rate: Fraction
) -> None:
    """Compare the end of the last packet with the duration that Matroska notes for a stream."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        declared = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (KeyError, ValueError):
        return
    ends = [packet.start + packet.duration for packet in packets if packet.start is not None]
    if not ends or not stream.time_base or not all(packet.duration for packet in packets):
        return
    end = max(ends) * stream.time_base
    if (declared - end) * rate > Fraction(1, 2):
        raise VideoError(
            f"{path}: truncated, {float(end):.2f} of {float(declared):.2f} seconds are there"
        )
