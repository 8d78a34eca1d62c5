"""Videos: the same frames from both decoders, files that say what is wrong, and exact writing."""

import os
import re
import struct
import subprocess
import sys
import wave
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lisa_video.assets import fetch_asset
from lisa_video.errors import UserError
from lisa_video.video import (
    VideoError,
    count_frames,
    even_size,
    probe_video,
    read_video,
    write_video,
)

FPS = 25
LEVELS = 2  # of 255: what two decoders may differ by
RANDOM_ORDER = [29, 3, 17, 17, 0, 30, 11, 4, 28]

needs_decord = pytest.mark.skipif(
    find_spec("decord") is None, reason="decord has no wheel for this platform"
)


@pytest.fixture(scope="module")
def bikes() -> np.ndarray:
    """A real scene with motion, (31, 128, 192, 3)."""
    path = fetch_asset("clips") / "bikes.mp4"
    return read_video(path, range(40, 71)).frames[:, 100:228, 200:392]


def encode(
    path: Path, frames: Iterable[np.ndarray], codec: str = "libx264", **options: str
) -> None:
    """Write as other programs do: `options` are those of the codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        assert isinstance(stream, av.VideoStream)
        pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
        stream.height, stream.width = pictures[0].height, pictures[0].width
        stream.pix_fmt = "yuv420p"
        stream.options = {**options}
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def patch(source: Path, target: Path, name: bytes, offset: int, values: bytes) -> None:
    """Copy an mp4 with some bytes of the box `name` replaced, counted from behind its name."""
    content = bytearray(source.read_bytes())
    start = content.index(name) + len(name) + offset
    content[start : start + len(values)] = values
    target.write_bytes(content)


def difference(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape
    return int(np.abs(first.astype(np.int16) - second).max())


# Both decoders give the same frames.


@needs_decord
@pytest.mark.parametrize(
    ("name", "info"),
    [("carphone_pristine.mp4", (120, 176, 144, 30000 / 1001)), ("bikes.mp4", (250, 640, 272, 25))],
)
def test_decoders_agree_on_real_clips(name: str, info: tuple[Any, ...]) -> None:
    path = fetch_asset("clips") / name
    assert astuple(probe_video(path)) == pytest.approx(info)
    # Every third frame is enough to see a shift, and a third of the memory.
    places = range(0, info[0], 3)
    by_decord = read_video(path, places, backend="decord")
    by_pyav = read_video(path, places, backend="pyav")
    assert by_decord.frames.shape == (len(places), info[2], info[1], 3)
    assert by_decord.fps == by_pyav.fps == pytest.approx(info[3])
    assert difference(by_decord.frames, by_pyav.frames) <= LEVELS
    shuffled = [20, 1, 33, 1, 0, 19, 18]
    for backend in ("decord", "pyav"):
        picked = read_video(path, [3 * place for place in shuffled], backend=backend).frames
        assert difference(picked, by_pyav.frames[shuffled]) <= LEVELS


@needs_decord
@pytest.mark.parametrize(
    "options",
    [{"bf": "0", "g": "10"}, {"bf": "3", "g": "12"}, {"x264-params": "bframes=3:b-pyramid=strict"}],
    ids=["no B-frames", "B-frames", "B-pyramid"],
)
def test_decoders_agree_whatever_the_order_in_the_file(
    bikes: np.ndarray, tmp_path: Path, options: dict[str, str]
) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, bikes, **options)
    whole = read_video(path, backend="pyav").frames
    assert len(whole) == len(bikes)
    for index, frame in enumerate(whole):  # each is nearest to its own source
        distances = [np.abs(frame.astype(float) - source).mean() for source in bikes]
        assert np.argmin(distances) == index
    assert difference(read_video(path, backend="decord").frames, whole) <= LEVELS
    picked = read_video(path, RANDOM_ORDER, backend="decord").frames
    assert difference(picked, whole[RANDOM_ORDER]) <= LEVELS


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("open.mp4", "libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
        ("clip.avi", "mpeg4", {"bf": "2"}),
        ("clip.ts", "libx264", {}),
        ("clip.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_frames_are_exact_where_decord_is_not(
    bikes: np.ndarray, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """decord alone gives other pictures for the first two of these, and may for the third."""
    path = tmp_path / name
    encode(path, bikes, codec, **options)
    whole = read_video(path, backend="pyav").frames
    assert len(whole) == len(bikes)
    assert difference(read_video(path).frames, whole) <= LEVELS
    assert difference(read_video(path, RANDOM_ORDER).frames, whole[RANDOM_ORDER]) <= LEVELS


@pytest.mark.parametrize(("turns", "matrix"), [(1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1))])
def test_rotated_videos_stand_upright(
    bikes: np.ndarray, tmp_path: Path, turns: int, matrix: tuple[int, int, int, int]
) -> None:
    lying, upright = tmp_path / "lying.mp4", tmp_path / "upright.mp4"
    encode(lying, bikes)
    a, b, c, d = (value << 16 for value in matrix)
    patch(lying, upright, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    expected = np.rot90(read_video(lying, backend="pyav").frames, turns, (1, 2))
    info = probe_video(upright)
    assert (info.height, info.width) == expected.shape[1:3]
    for backend in ("auto", "pyav"):
        assert difference(read_video(upright, backend=backend).frames, expected) <= LEVELS


def test_what_an_edit_list_cuts_off_does_not_count(bikes: np.ndarray, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    encode(whole, bikes, bf="3")
    with av.open(str(whole)) as container:
        time_base = container.streams.video[0].time_base
        assert time_base is not None
        tick = round(1 / FPS / time_base)
    content = whole.read_bytes()
    (start,) = struct.unpack_from(">i", content, content.index(b"elst") + 16)
    patch(whole, cut, b"elst", 12, struct.pack(">i", start + 5 * tick))
    expected = read_video(whole).frames[5:]
    assert count_frames(cut) == len(expected)
    for backend in ("auto", "pyav"):
        frames = read_video(cut, backend=backend).frames
        assert difference(frames, expected) <= LEVELS


def test_pyav_reads_where_decord_is_missing(
    bikes: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, bikes)
    expected = read_video(path, [4, 2]).frames
    monkeypatch.setitem(sys.modules, "decord", None)
    assert difference(read_video(path, [4, 2]).frames, expected) <= LEVELS
    with pytest.raises(VideoError, match=r"clip\.mp4: decord is missing or .* use pyav"):
        read_video(path, backend="decord")


def test_names_that_look_like_protocols(bikes: np.ndarray, tmp_path: Path) -> None:
    write_video(tmp_path / "http:clip.mp4", bikes[:3], FPS)
    assert run_python("print(len(read_video(Path('http:clip.mp4')).frames))", tmp_path) == "3"


def test_opencv_writes_sound_images_after_a_video_was_read(
    bikes: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "clip.mp4", bikes[:3], FPS)
    code = (
        "frame = read_video(Path('clip.mp4')).frames[0]; import cv2; "
        "cv2.imwrite('frame.png', frame); print((cv2.imread('frame.png') == frame).all())"
    )
    assert run_python(code, tmp_path) == "True"


def run_python(code: str, folder: Path) -> str:
    """What a fresh process prints that starts in `folder` and has imported nothing else."""
    start = "from pathlib import Path; from lisa_video.video import read_video; "
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", start + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


# Files that cannot be read say why, in one line, and are never shortened.


def write_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def refused(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The message, which all functions and both backends give."""
    messages = set()
    for read in (
        probe_video,
        read_video,
        lambda path: read_video(path, [0], backend="pyav"),
        lambda path: read_video(path, [0], backend="decord"),
    ):
        with pytest.raises(VideoError) as error:
            read(path)
        messages.add(str(error.value))
    (message,) = messages
    assert message.startswith(f"{path}: ") and "\n" not in message
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    return message.removeprefix(f"{path}: ")


def test_files_that_are_no_videos(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    assert refused(path, capfd) == "no such video"
    path.touch()
    assert refused(path, capfd) == "the file is empty"
    path.write_text("a shopping list\n" * 99)
    assert refused(path, capfd) == "not a video, or broken from its start"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert refused(path, capfd) == "not a video, or broken from its start"
    write_sound(path)
    assert refused(path, capfd) == "has no video stream, only sound or other data"
    assert refused(tmp_path, capfd) == "is a folder, not a video"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_truncated_files_with_their_index_in_front(
    bikes: np.ndarray, tmp_path: Path, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kind that plays fine up to some frame; a share of 1 misses just the last byte."""
    path = tmp_path / "clip.mp4"
    write_video(path, bikes, FPS)
    content = path.read_bytes()
    pictures = content.index(b"mdat")
    kept = pictures + int(share * (len(content) - pictures)) - 1
    path.write_bytes(content[:kept])
    missing = len(content) - kept
    assert refused(path, capfd) == f"truncated, {missing} bytes of its pictures are missing"


@pytest.mark.parametrize(
    ("name", "codec", "problem"),
    [
        ("clip.mp4", "libx264", "not a video, or broken"),  # its index was at the end
        ("clip.mkv", "libx264", r"truncated, \S+ of 1.24 seconds are there"),
        ("clip.webm", "libvpx-vp9", r"truncated, \S+ of 1.24 seconds are there"),
        ("clip.avi", "mpeg4", "truncated"),
    ],
)
def test_truncated_files_of_other_kinds(
    bikes: np.ndarray,
    tmp_path: Path,
    name: str,
    codec: str,
    problem: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    encode(path, bikes, codec)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    assert re.match(problem, refused(path, capfd))


def test_a_hole_in_a_file_is_reported_with_its_frame(
    bikes: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As an interrupted download leaves it: of full length, and zero from somewhere on."""
    path = tmp_path / "clip.mp4"
    write_video(path, bikes, FPS)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))
    for backend in ("auto", "pyav"):
        with pytest.raises(VideoError, match=r"clip\.mp4: frame \d+ cannot be decoded: Invalid"):
            read_video(path, backend=backend)
    assert capfd.readouterr().err == ""


def test_frames_that_are_not_there(bikes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, bikes[:4], FPS)
    for index in (4, -1):
        with pytest.raises(VideoError, match=rf"has no frame {index}, its frames are 0 to 3"):
            read_video(path, [0, index])


# Writing.


def test_frames_come_back_as_written(bikes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, bikes, 30000 / 1001, crf=1)
    video = read_video(path)
    assert video.fps == pytest.approx(30000 / 1001)
    assert video.frames.dtype == np.uint8
    assert np.abs(video.frames.astype(float) - bikes).mean() < 2
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
def test_a_file_does_not_depend_on_the_cores_allowed(bikes: np.ndarray, tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    write_video(tmp_path / "all.mp4", bikes, 10)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        write_video(tmp_path / "one.mp4", bikes, 10)
    finally:
        os.sched_setaffinity(0, allowed)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "all.mp4").read_bytes()


def test_nothing_is_overwritten_unless_asked_to(bikes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"clip\.mp4: exists already"):
        write_video(path, bikes[:2], FPS)
    assert path.read_bytes() == b"precious"
    write_video(path, bikes[:2], FPS, overwrite=True)
    assert count_frames(path) == 2
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_an_interrupted_writer_leaves_what_was_there(bikes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"precious")

    def interrupted() -> Iterator[np.ndarray]:
        yield from bikes[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted(), FPS, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_what_cannot_be_written(bikes: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: its folder does not exist"):
        write_video(tmp_path / "none" / "clip.mp4", bikes, FPS)
    for fps in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="it must be positive"):
            write_video(tmp_path / "clip.mp4", bikes, fps)
    with pytest.raises(UserError, match="no frame to write"):
        write_video(tmp_path / "clip.mp4", [], FPS)
    assert os.listdir(tmp_path) == []
