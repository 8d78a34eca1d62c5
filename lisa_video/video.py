"""Videos in and out: exact frames by decord or PyAV, and H.264 that browsers play.

A video's frames are the pictures that a player shows, in that order: rotated as the file asks for
(phones store portrait videos lying down), without what an edit list cuts off, converted to RGB with
the matrix and range that the file names. They are never re-timed, and pixels that are not square
are left as they are.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from lisa_video.errors import UserError

VideoBackend = Literal["auto", "decord", "pyav"]

_BT709 = 1  # FFmpeg's number of this YUV matrix


class VideoError(UserError):
    """A video that cannot be read as it is."""


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


@dataclass(frozen=True)
class _Contents:
    """What reading all packets tells, before anything is decoded."""

    pictures: int
    fps: float
    seekable: bool
    """Whether decord gives the right picture for every index; see `_seekable`."""


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
    height, width = _read_pyav(path, [0]).shape[1:3]
    return VideoInfo(contents.pictures, width, height, contents.fps)


def read_video(
    path: Path, indices: Sequence[int] | None = None, *, backend: VideoBackend = "auto"
) -> Video:
    """Decode all frames, or those at `indices` in the order given.

    Before any decoder is tried all packets are read, which is quick: decord can hang on broken
    files, and some sound ones it reads wrongly. "auto" takes decord where it is installed and
    exact, and else PyAV, which decodes from the start of the file; both give the same frames.

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
        if not 0 <= index < contents.pictures:
            raise VideoError(
                f"{path}: has no frame {index}, its frames are 0 to {contents.pictures - 1}"
            )
    frames = None
    if backend != "pyav" and contents.seekable:
        frames = _read_decord(path, wanted, contents.pictures)
    if frames is None and backend == "decord":
        raise VideoError(f"{path}: decord is missing or cannot read this file exactly; use pyav")
    return Video(_read_pyav(path, wanted) if frames is None else frames, contents.fps)


def even_size(width: int, height: int) -> tuple[int, int]:
    """The size that `VideoWriter` gives to frames of `width` x `height` pixels."""
    return width + width % 2, height + height % 2


class VideoWriter:
    """Write frames one by one to an H.264 mp4 that plays while it loads, as a context manager.

    The pictures are yuv420p, BT.709. This format has even sizes: of an odd width or height the last
    column or row is repeated. The file appears under its name when the block ends well; after an
    error nothing is left.

    Args:
        path: of the file.
        fps: frames per second.
        crf: quality of x264, 1 (finest) to 51.
        overwrite: replace an existing file.

    Raises:
        UserError: the file exists, its folder does not, or it cannot be written; fps is not above
            0; no frame was written.
    """

    def __init__(self, path: Path, fps: float, *, crf: int = 18, overwrite: bool = False) -> None:
        assert 1 <= crf <= 51, crf
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists already; give another name or remove it first")
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path}: its folder does not exist; create it first")
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(f"{path}: fps is {fps}, it must be positive")
        self.path, self._crf = path, crf
        self._fps = Fraction(fps).limit_denominator(1001)  # as in 30000/1001
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> VideoWriter:
        try:
            self._container: OutputContainer = av.open(
                str(self._temporary.absolute()),
                "w",
                format="mp4",
                options={"movflags": "+faststart"},
            )
        except OSError as error:
            raise UserError(f"{self.path}: cannot write this file: {error.strerror}") from None
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 (H, W, 3), of the same size as those before it."""
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3, frame.shape
        if not self._shape:
            self._add_stream(*frame.shape[:2])
            self._shape = frame.shape
        assert frame.shape == self._shape, (frame.shape, self._shape)
        padding = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
        picture = av.VideoFrame.from_ndarray(np.pad(frame, padding, mode="edge"), format="rgb24")
        self._encode(
            picture.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._shape:
                self._encode(None)
            self._close()
            if kind is None:
                if not self._shape:
                    raise UserError(f"{self.path}: no frame to write")
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _add_stream(self, height: int, width: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self._stream.width, self._stream.height = even_size(width, height)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(self._crf), **_same_bytes()}
        # Without these, players choose the matrix by the size of the picture.
        codec = self._stream.codec_context
        codec.thread_count = 1  # the bytes depend on it, and x264 would go by the cores allowed
        codec.colorspace, codec.color_range = _BT709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except av.FFmpegError as error:
            raise UserError(f"{self.path}: cannot write this file: {error.strerror}") from None

    def _close(self) -> None:
        try:
            self._container.close()
        except av.FFmpegError as error:
            raise UserError(f"{self.path}: cannot write this file: {error.strerror}") from None


def _same_bytes() -> dict[str, object]:
    """x264's AVX-512 code (core 165) encodes the same frames differently from run to run."""
    from torch.backends.cpu import get_cpu_capability

    return {"x264-params": "asm=AVX2"} if get_cpu_capability() == "AVX512" else {}


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    *,
    crf: int = 18,
    overwrite: bool = False,
) -> None:
    """Write frames, each uint8 (H, W, 3), as `VideoWriter` does and with its errors."""
    with VideoWriter(path, fps, crf=crf, overwrite=overwrite) as writer:
        for frame in frames:
            writer.write(frame)


def _open(path: Path) -> InputContainer:
    """Container with a video stream; raises VideoError."""
    if not path.is_file():
        raise VideoError(f"{path}: no such video")
    if not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty")
    try:
        # Absolute, so that FFmpeg takes no name for a protocol.
        container = av.open(str(path.absolute()))
    except (av.FFmpegError, UnicodeDecodeError):
        raise VideoError(f"{path}: not a video, or broken from its start") from None
    if not _video_streams(container):
        container.close()
        raise VideoError(f"{path}: has no video stream, only sound or other data")
    return container


def _video_streams(container: InputContainer) -> list[av.VideoStream]:
    """Without the cover picture of a song."""
    cover = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _inspect(path: Path) -> _Contents:
    """Read all packets of a video; raises VideoError where pictures are missing."""
    with _open(path) as container:
        stream, *others = _video_streams(container)
        kind = container.format.name
        _check_extent(path, stream)
        packets = _read_packets(path, container, stream)
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
        indexed = kind.startswith(("mov,", "matroska,"))
        return _Contents(pictures, float(rate), indexed and not others and _seekable(packets))


class _Packet(NamedTuple):
    """One picture as the file stores it; times are in ticks of the stream."""

    start: int | None
    duration: int
    key: bool
    shown: bool


def _read_packets(path: Path, container: InputContainer, stream: av.VideoStream) -> list[_Packet]:
    """Packets in the order of the file; raises VideoError where one is not whole."""
    packets: list[_Packet] = []
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError(f"{path}: truncated or damaged after {len(packets)} frames")
            if packet.size:
                duration = packet.duration or 0
                shown = not packet.is_discard
                packets.append(_Packet(packet.pts, duration, packet.is_keyframe, shown))
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: cannot be read after {len(packets)} frames: {error.strerror}"
        ) from None
    return packets


def _seekable(packets: list[_Packet]) -> bool:
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


def _check_extent(path: Path, stream: av.VideoStream) -> None:
    """Compare where the container's index says that pictures are with the size of the file."""
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    missing = end - path.stat().st_size
    if missing > 0:
        raise VideoError(f"{path}: truncated, {missing} bytes of its pictures are missing")


def _check_duration(
    path: Path, stream: av.VideoStream, packets: list[_Packet], rate: Fraction
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


def _read_decord(path: Path, wanted: list[int], count: int) -> NDArray[np.uint8] | None:
    """Frames by decord, or None where it is missing, fails or counts other frames."""
    # decord puts its zlib of 2005 in front of that of libraries loaded after it, and OpenCV then
    # writes PNG files that nobody can read.
    import cv2  # noqa: F401

    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)  # PyAV says what is wrong
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        return reader.get_batch(wanted).asnumpy() if len(reader) == count else None
    except (decord.DECORDError, RuntimeError):
        return None


def _read_pyav(path: Path, wanted: list[int]) -> NDArray[np.uint8]:
    """Frames by decoding from the start, which is exact in every container; raises VideoError."""
    needed, last = set(wanted), max(wanted)
    found: dict[int, NDArray[np.uint8]] = {}
    decoded = 0
    with _open(path) as container:
        stream = _video_streams(container)[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                if decoded in needed:
                    found[decoded] = _upright(frame)
                decoded += 1
                if decoded > last:
                    break
        except av.FFmpegError as error:
            raise VideoError(
                f"{path}: frame {decoded} cannot be decoded: {error.strerror}"
            ) from None
    if decoded <= last:
        raise VideoError(f"{path}: only {decoded} frames can be decoded, the file is damaged")
    sizes = sorted({(frame.shape[1], frame.shape[0]) for frame in found.values()})
    if len(sizes) > 1:
        raise VideoError(f"{path}: its frames change their size, {sizes[0]} and {sizes[1]} pixels")
    return np.stack([found[index] for index in wanted])


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """RGB of a frame, turned as the file asks for."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, frame.rotation // 90 % 4).astype(np.uint8, copy=False)
