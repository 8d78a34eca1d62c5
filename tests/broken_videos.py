"""Twelve ways for a video to be broken, each with the reason that reading it gives."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

FRAMES = 24
FPS = 25


@dataclass(frozen=True)
class Fault:
    """One way of being broken."""

    name: str
    """Of the file that `break_videos` writes, without .mp4."""
    reason: str
    """Pattern that the whole message behind the path fits."""
    make: Callable[[Path, bytes], None]
    """Write the file; given is the content of a sound mp4 with its index in front."""


def moving_frames(
    seed: int = 0, count: int = FRAMES, size: tuple[int, int] = (64, 48)
) -> np.ndarray:
    """Coloured noise, blurred, that drifts: uint8 (count, H, W, 3), no two frames alike."""
    width, height = size
    random = np.random.default_rng(seed)
    waves, phases = random.uniform(-0.3, 0.3, (3, 2)), random.uniform(0, 6, 3)
    time, y, x = np.ogrid[:count, :height, :width]
    planes = [
        np.sin(a * y + b * x + c + 0.12 * time) for (a, b), c in zip(waves, phases, strict=True)
    ]
    return (127 + 100 * np.stack(planes, axis=-1)).astype(np.uint8)


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    *,
    ticks: list[int] | None = None,
    format_options: dict[str, str] | None = None,
    **options: str,
) -> None:
    """Write as other programs do: `options` are those of the codec.

    Args:
        ticks: time of each frame, in 1 / (8 * FPS) seconds; without them FPS frames a second.
        format_options: those of the container.
    """
    with av.open(str(path), "w", options=format_options or {}) as container:
        stream = container.add_stream(codec, rate=FPS if ticks is None else 8 * FPS)
        assert isinstance(stream, av.VideoStream)
        pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
        stream.height, stream.width = pictures[0].height, pictures[0].width
        stream.pix_fmt = "yuv420p"
        stream.options = {**options}
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(pictures):
            if ticks is not None:
                picture.pts = ticks[number]
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_sound_video(path: Path, seed: int = 0) -> None:
    """A small mp4 that is whole, with its index in front."""
    encode(
        path,
        moving_frames(seed),
        format_options={"movflags": "+faststart"},
        g="8",
        crf="18",
        bf="2",
    )


def break_videos(folder: Path, faults: Iterable[Fault] | None = None) -> dict[Path, str]:
    """Write one video for each fault into `folder`: path -> pattern of the reason.

    A reason fits the whole message behind "PATH: ".
    """
    sound = folder / "sound.mp4"
    write_sound_video(sound)
    content = sound.read_bytes()
    sound.unlink()
    reasons = {}
    for fault in FAULTS if faults is None else faults:
        path = folder / f"{fault.name}.mp4"
        fault.make(path, content)
        reasons[path] = fault.reason
    return reasons


def _write_index_lost(path: Path, content: bytes) -> None:
    """As a recording leaves it that stopped before its index was written."""
    start, end = _box(content, b"moov")
    path.write_bytes(content[:start] + content[end:])


def _write_truncated(path: Path, content: bytes) -> None:
    start, end = _box(content, b"mdat")
    path.write_bytes(content[: (start + end) // 2])


def _write_text(path: Path, content: bytes) -> None:
    path.write_text("a shopping list\n" * 99)


def _write_sound_only(path: Path, content: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def _write_flipped(path: Path, content: bytes) -> None:
    """Bytes of the pictures inverted, here and there: all sizes and the index stay right."""
    start, end = _box(content, b"mdat")
    damaged = bytearray(content)
    # Behind x264's notes on its settings, which the first picture carries and nobody reads.
    for place in range(start + 1200, end, 23):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)


def _write_hole(path: Path, content: bytes) -> None:
    """As an interrupted download leaves it: of full length, and zero from somewhere on."""
    start, end = _box(content, b"mdat")
    middle = (start + end) // 2
    path.write_bytes(content[:middle] + bytes(len(content) - middle))


def _write_no_frames(path: Path, content: bytes) -> None:
    """A track whose table of samples is empty."""
    emptied = bytearray(content)
    place = content.index(b"stsz") + 4
    struct.pack_into(">I", emptied, place + 8, 0)
    path.write_bytes(emptied)


def _write_wrong_header(path: Path, content: bytes) -> None:
    """The box of the index says that it ends within itself."""
    start, end = _box(content, b"moov")
    wrong = bytearray(content)
    struct.pack_into(">I", wrong, start, (end - start) // 2)
    path.write_bytes(wrong)


def _write_image(path: Path, content: bytes) -> None:
    written = path.with_name(f"{path.stem}.png")
    assert cv2.imwrite(str(written), moving_frames(count=1)[0])
    written.rename(path)


def _write_link(path: Path, content: bytes) -> None:
    path.symlink_to(path.with_name("gone.mp4"))


def _box(content: bytes, name: bytes) -> tuple[int, int]:
    """Start and end of a box of an mp4."""
    start = content.index(name) - 4
    (size,) = struct.unpack_from(">I", content, start)
    return start, start + size


FAULTS = (
    Fault("index_lost", "not a video, or broken from its start", _write_index_lost),
    Fault("truncated", r"truncated, \d+ bytes of its pictures are missing", _write_truncated),
    Fault("empty", "the file is empty", lambda path, _: path.touch()),
    Fault("text", "not a video, or broken from its start", _write_text),
    Fault("sound", "has no video stream, only sound or other data", _write_sound_only),
    Fault("flipped", r"frame \d+ (is damaged|cannot be decoded: .*)", _write_flipped),
    Fault("hole", r"frame \d+ (is damaged|cannot be decoded: .*)", _write_hole),
    Fault("no_frames", "its video stream has no frames", _write_no_frames),
    Fault("wrong_header", "its video stream has no frames", _write_wrong_header),
    Fault("image", "is an image, not a video", _write_image),
    Fault("folder", "is a folder, not a video", lambda path, _: path.mkdir()),
    Fault("link", "its link leads nowhere", _write_link),
)
