"""Videos out: H.264 that browsers play.

Shape legend: H W pixels; frames are uint8 RGB.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from lisa_video.errors import UserError

_BT709 = 1  # FFmpeg's number of this YUV matrix


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
