"""Videos in and out: exact frames by decord or PyAV, and H.264 that browsers play.

Shape legend: F frames, H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import numpy as np

from lisa_video.errors import UserError

VideoBackend = Literal["auto", "decord", "pyav"]


class VideoError(UserError):
    """A video that cannot be read as it is."""


@dataclass(frozen=True)
class Video:
    """Decoded frames.

    Attributes:
        frames: uint8 (F, H, W, 3).
        fps: average frames per second.
    """

    frames: np.ndarray
    fps: float


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds, counted rather than declared."""

    frames: int
    width: int
    height: int
    fps: float


def probe_video(path: str | Path) -> VideoInfo:
    """Count the pictures of a file without decoding them.

    Raises:
        VideoError: missing, empty, no video, or shorter than its container declares.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        count = _count_packets(container, stream, path)
        declared = stream.frames
        if declared and count < declared:
            raise VideoError(
                f"{path}: holds {count} of {declared} declared frames; the file is truncated"
            )
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if not count or not stream.width or fps <= 0:
            raise VideoError(f"{path}: no video frames inside; is it an audio file or truncated?")
        return VideoInfo(count, stream.width, stream.height, fps)


def read_video(
    path: str | Path, indices: Sequence[int] | None = None, *, backend: VideoBackend = "auto"
) -> Video:
    """Decode all frames, or those at `indices` in the order given.

    Frames are those the file holds, never re-timed. "auto" takes decord and, where decord is
    missing or fails, PyAV; both give the same frames. A file that PyAV's demuxer finds broken never
    reaches decord, which can hang.

    Raises:
        VideoError: as `probe_video`; a frame cannot be decoded; an index lies outside the file.
    """
    info = probe_video(path)
    wanted = list(range(info.frames)) if indices is None else list(indices)
    outside = [index for index in wanted if not 0 <= index < info.frames]
    if outside:
        raise VideoError(f"{path}: frame {outside[0]} asked for, it has 0 to {info.frames - 1}")
    if backend == "pyav":
        return Video(_read_pyav(path, wanted), info.fps)
    frames = _read_decord(path, wanted, info.frames)
    if frames is None:
        if backend == "decord":
            raise VideoError(f"{path}: decord is not installed or cannot read it; use pyav")
        frames = _read_pyav(path, wanted)
    return Video(frames, info.fps)


class VideoWriter:
    """Write frames one by one to an H.264 mp4 (yuv420p, moov first), used as a context manager.

    Odd widths and heights, which yuv420p cannot hold, are made even by repeating the last column or
    row. The file appears under its name when the block ends well; after an error nothing is left.

    Args:
        path: of the file.
        fps: frames per second.
        crf: quality of x264, 0 (lossless) to 51.
        overwrite: replace an existing file.

    Raises:
        UserError: the file exists, its folder does not, or fps is not above 0.
    """

    def __init__(
        self, path: str | Path, fps: float, *, crf: int = 18, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise UserError(f"{path}: exists already; choose another name")
        if not self.path.parent.is_dir():
            raise UserError(f"{path}: the folder {self.path.parent} does not exist")
        if not fps > 0:
            raise UserError(f"{path}: fps={fps} must be above 0")
        self.fps, self.crf = Fraction(fps).limit_denominator(1001), crf
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp.mp4")
        self._container = av.open(
            str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"}
        )
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 (H, W, 3); all frames have one size."""
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3, frame.shape
        odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
        frame = np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self.fps)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": str(self.crf)}
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
            self._container.close()
            if kind is None:
                if self._stream is None:
                    raise UserError(f"{self.path}: no frames to write")
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    crf: int = 18,
    overwrite: bool = False,
) -> None:
    """Write frames, each uint8 (H, W, 3), as `VideoWriter` does, with the same errors."""
    with VideoWriter(path, fps, crf=crf, overwrite=overwrite) as writer:
        for frame in frames:
            writer.write(frame)


def _open(path: str | Path) -> av.container.InputContainer:
    file = Path(path)
    if not file.is_file():
        raise VideoError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    try:
        container = av.open(str(file))
    except (av.FFmpegError, ValueError):
        raise VideoError(
            f"{path}: not a readable video; broken, truncated or another format"
        ) from None
    if not container.streams.video:
        container.close()
        raise VideoError(f"{path}: no video stream inside, only audio or data")
    return container


def _count_packets(
    container: av.container.InputContainer, stream: av.VideoStream, path: str | Path
) -> int:
    """Pictures of the stream: packets that hold data and are shown."""
    try:
        return sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be read to its end ({error.strerror})") from None


def _read_decord(path: str | Path, wanted: list[int], count: int) -> np.ndarray | None:
    """Frames by decord, or None where it is missing, fails or counts other frames."""
    try:
        import decord
    except ImportError:
        return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) != count:
            return None
        return np.asarray(reader.get_batch(wanted).asnumpy())
    except decord.DECORDError:
        return None


def _read_pyav(path: str | Path, wanted: list[int]) -> np.ndarray:
    """Frames by decoding from the start: exact whatever the key frames and time stamps are."""
    needed, last = set(wanted), max(wanted, default=-1)
    found: dict[int, np.ndarray] = {}
    with _open(path) as container:
        try:
            for index, frame in enumerate(container.decode(video=0)):
                if index in needed:
                    found[index] = frame.to_ndarray(format="rgb24")
                if index == last:
                    break
        except av.FFmpegError as error:
            raise VideoError(f"{path}: frame {len(found)} is broken ({error.strerror})") from None
    missing = sorted(needed - set(found))
    if missing:
        raise VideoError(f"{path}: frame {missing[0]} cannot be decoded; the file is damaged")
    sizes = {frame.shape for frame in found.values()}
    if len(sizes) > 1:
        raise VideoError(f"{path}: its frames change size ({sorted(sizes)})")
    return np.stack([found[index] for index in wanted])
