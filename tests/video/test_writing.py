"""Writing: exact frames, true colours, the same bytes each time, and nothing of the user's lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.video import count_frames, even_size, read_video, write_video
from tests.broken_videos import FPS, moving_frames


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """(31, 64, 96, 3), grey: yuv420p halves the resolution of colours."""
    frames = moving_frames(count=31, size=(96, 64))
    frames[:] = frames[..., :1]
    return frames


def difference(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape
    return int(np.abs(first.astype(np.int16) - second).max())


def test_frames_come_back_as_written(moving: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, moving, 30000 / 1001, crf=1)
    video = read_video(path)
    assert video.fps == pytest.approx(30000 / 1001)
    assert video.frames.dtype == np.uint8
    assert np.abs(video.frames.astype(float) - moving).mean() < 2
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "must play while it loads"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("colour", [(220, 40, 30), (30, 200, 60), (20, 60, 230), (255, 255, 255)])
def test_colours_come_back_in_both_decoders(tmp_path: Path, colour: tuple[int, ...]) -> None:
    path = tmp_path / "clip.mp4"
    frames = np.full((3, 32, 48, 3), colour, np.uint8)
    write_video(path, frames, FPS)
    for backend in ("auto", "pyav"):
        assert difference(read_video(path, backend=backend).frames, frames) <= 3


@pytest.mark.parametrize("size", [(48, 32), (47, 32), (48, 31), (47, 31), (1, 1)])
def test_odd_sizes_are_padded_at_the_right_and_the_bottom(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    width, height = size
    x, y = np.meshgrid(np.linspace(20, 230, width), np.linspace(20, 230, height))
    frame = np.stack([x, y, 0 * x + 128], axis=-1).round().astype(np.uint8)
    path = tmp_path / "clip.mp4"
    write_video(path, [frame] * 3, FPS, crf=1)
    read = read_video(path).frames
    assert read.shape == (3, height + height % 2, width + width % 2, 3)
    assert even_size(*size) == (read.shape[2], read.shape[1])
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert np.abs(read[0].astype(float) - padded).mean() < 3
    if height % 2:
        assert difference(read[:, -1], read[:, -2]) <= 8
    if width % 2:
        assert difference(read[:, :, -1], read[:, :, -2]) <= 8


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores and a system that can take one away",
)
def test_a_file_does_not_depend_on_the_cores_allowed(moving: np.ndarray, tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    write_video(tmp_path / "all.mp4", moving, 10)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        write_video(tmp_path / "one.mp4", moving, 10)
    finally:
        os.sched_setaffinity(0, allowed)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "all.mp4").read_bytes()


def test_nothing_is_overwritten_unless_asked_to(moving: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"clip\.mp4: exists already"):
        write_video(path, moving[:2], FPS)
    assert path.read_bytes() == b"precious"
    write_video(path, moving[:2], FPS, overwrite=True)
    assert count_frames(path) == 2
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_an_interrupted_writer_leaves_what_was_there(moving: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"precious")

    def interrupted() -> Iterator[np.ndarray]:
        yield from moving[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), FPS, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_what_cannot_be_written(moving: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: its folder does not exist"):
        write_video(tmp_path / "none" / "clip.mp4", moving, FPS)
    for fps in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="it must be positive"):
            write_video(tmp_path / "clip.mp4", moving, fps)
    with pytest.raises(UserError, match="no frame to write"):
        write_video(tmp_path / "clip.mp4", [], FPS)
    assert os.listdir(tmp_path) == []
