"""Videos: the same frames from both decoders, files that say what is wrong, and exact writing."""

import os
import re
import struct
import subprocess
import sys
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lisa_video.assets import fetch_asset
from lisa_video.video import (
    VideoError,
    count_frames,
    iter_frames,
    iter_frames_at,
    probe_video,
    read_video,
    write_video,
)
from tests.broken_videos import (
    FAULTS,
    FPS,
    Fault,
    break_videos,
    encode,
    moving_frames,
    write_sound_video,
)

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
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", start + code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


# Files that cannot be read say why, in one line, and are never shortened.


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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_broken_files(tmp_path: Path, fault: Fault, capfd: pytest.CaptureFixture[str]) -> None:
    ((path, reason),) = break_videos(tmp_path, [fault]).items()
    messages = set()
    for read in (
        read_video,
        lambda path: read_video(path, backend="pyav"),
        lambda path: list(iter_frames(path)),
    ):
        with pytest.raises(VideoError) as error:
            read(path)
        messages.add(str(error.value))
    (message,) = messages
    assert re.fullmatch(reason, message.removeprefix(f"{path}: "))
    assert "".join(capfd.readouterr()) == ""


def test_files_that_are_not_there_or_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.mp4"
    assert refused(path, capfd) == "no such video"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert refused(path, capfd) == "not a video, or broken from its start"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refused(tmp_path / "pipe.mp4", capfd) == "is no ordinary file"
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    assert refused(loop, capfd) == "its link leads nowhere"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, np.zeros((2, 32, 32, 3), np.uint8), FPS)
    path.chmod(0)
    assert refused(path, capfd) == "may not be read, its permissions forbid it"


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mp4", "libx264"), ("clip.mkv", "libx264"), ("clip.webm", "libvpx")]
)
def test_any_damage_gives_frames_or_a_reason(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    encode(path, moving_frames(count=12), codec, g="6", deadline="realtime")
    content = path.read_bytes()
    random = np.random.default_rng(0)
    lengths, problems = [], []
    for _ in range(40):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 12)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            lengths.append((len(read_video(path).frames), count_frames(path)))
        except VideoError as error:
            problems.append(str(error))
    assert lengths and all(read == counted for read, counted in lengths)
    assert problems and all(
        problem.startswith(f"{path}: ") and "\n" not in problem for problem in problems
    )


def test_the_list_of_faults_is_long_enough() -> None:
    """Other tests take ten of them."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 10


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


def test_frames_that_are_not_there(bikes: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, bikes[:4], FPS)
    for index in (4, -1):
        with pytest.raises(VideoError, match=rf"has no frame {index}, its frames are 0 to 3"):
            read_video(path, [0, index])


def test_frames_at_rising_indices_come_one_by_one(tmp_path: Path) -> None:
    write_sound_video(tmp_path / "a.mp4")
    wanted = [2, 2, 5, 11, 11, 11, 23]
    streamed = np.stack(list(iter_frames_at(tmp_path / "a.mp4", wanted)))
    everything = read_video(tmp_path / "a.mp4", backend="pyav").frames
    np.testing.assert_array_equal(streamed, everything[wanted])
    with pytest.raises(VideoError, match="24"):
        list(iter_frames_at(tmp_path / "a.mp4", [3, 24]))
