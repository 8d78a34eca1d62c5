"""Decoders that hang or die: real processes, with a stand-in for decord that misbehaves for real."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lisa_video.errors import UserError
from lisa_video.video import VideoError, count_frames, iter_frames, probe_video, read_video
from lisa_video.video.guard import LIMIT_VARIABLE, _idle, end_workers
from tests.broken_videos import encode, moving_frames

FRAMES = 20
HANG = "ctypes.PyDLL(None).pause()"  # in C and with Python's lock, as bad as it gets
DECORD = """
import ctypes, os, signal, time
class DECORDError(Exception): pass
class logging:
    QUIET = 0
    set_level = staticmethod(lambda level: None)
class VideoReader:
    def __init__(self, path, num_threads): {fault}
"""

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a clip's näme.mp4"
    encode(path, moving_frames(count=FRAMES), g="8", bf="2", crf="10")
    return path


@pytest.fixture(scope="module")
def expected(clip: Path) -> np.ndarray:
    return read_video(clip, backend="pyav").frames


@pytest.fixture
def fresh_workers() -> Iterator[None]:
    """Workers keep the module path that they were started with."""
    end_workers()
    yield
    end_workers()


def use_decord(folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "decord.py").write_text(DECORD.format(fault=fault))
    monkeypatch.syspath_prepend(folder)


def worker_pid() -> int:
    (worker,) = _idle
    return worker.process.pid


def has_ended(pid: int) -> bool:
    """Within ten seconds; one that only waits to be collected has ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (HANG, "decoding stood still for 2 s and was stopped"),
        ("os.abort()", r"decoding crashed \(SIGABRT\)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"decoding crashed \(SIGSEGV\)"),
        ("os._exit(3)", "decoding ended with exit code 3"),
        ("raise DECORDError", "decord is missing or cannot read this file exactly; use pyav"),
    ],
)
def test_a_decoder_that_fails(
    clip: Path,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: str,
    reason: str,
) -> None:
    use_decord(tmp_path, fault, monkeypatch)
    monkeypatch.setenv(LIMIT_VARIABLE, "2")
    with pytest.raises(VideoError, match=f"^{clip}: {reason}$"):
        read_video(clip, backend="decord")
    # PyAV gives the frames, every one and in the order asked for.
    wanted = [7, 2, 2, 19]
    np.testing.assert_array_equal(read_video(clip, wanted).frames, expected[wanted])
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.usefixtures("fresh_workers")
def test_pyav_reads_where_decord_is_missing(
    clip: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "decord.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    np.testing.assert_array_equal(read_video(clip, [4, 2]).frames, expected[[4, 2]])
    with pytest.raises(VideoError, match=r"näme\.mp4: decord is missing or .* use pyav"):
        read_video(clip, backend="decord")


@pytest.mark.usefixtures("fresh_workers")
def test_a_decoder_that_hangs_between_frames(
    clip: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "2")
    count_frames(clip)
    pid = worker_pid()
    frames = iter_frames(clip)
    next(frames)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(VideoError, match=r"näme\.mp4: decoding stood still for 2 s"):
        list(frames)
    assert not _idle
    np.testing.assert_array_equal(list(iter_frames(clip)), expected)


@pytest.mark.usefixtures("fresh_workers")
def test_time_that_the_reader_takes_does_not_count(
    clip: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    frames = []
    for frame in iter_frames(clip):
        if len(frames) == 3:
            time.sleep(1.5)
        frames.append(frame)
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.usefixtures("fresh_workers")
def test_one_worker_serves_many_videos(clip: Path, tmp_path: Path) -> None:
    count_frames(clip)
    pid = worker_pid()
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    for _ in range(3):
        with pytest.raises(VideoError, match="broken"):
            probe_video(broken)
        assert len(read_video(clip, [3, 1]).frames) == 2
        assert worker_pid() == pid
    os.kill(pid, signal.SIGKILL)  # as the system does where memory runs out
    assert has_ended(pid)
    assert count_frames(clip) == FRAMES
    assert worker_pid() != pid


@pytest.mark.usefixtures("fresh_workers")
def test_frames_that_nobody_wants_any_more(clip: Path) -> None:
    count_frames(clip)
    pid = worker_pid()
    frames = iter_frames(clip)
    next(frames)
    frames.close()
    assert not _idle
    with pytest.raises(ProcessLookupError):  # ended, and collected
        os.kill(pid, 0)


def test_threads_have_workers_of_their_own(clip: Path, expected: np.ndarray) -> None:
    with ThreadPoolExecutor(3) as threads:
        for found in threads.map(lambda _: list(iter_frames(clip)), range(6)):
            np.testing.assert_array_equal(found, expected)


class Windows:
    """Frames of one clip, as torch reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return FRAMES

    def __getitem__(self, index: int) -> np.ndarray:
        return read_video(self.path, [index]).frames[0]


def test_workers_of_a_data_loader_decode_too(clip: Path, expected: np.ndarray) -> None:
    """They are copies of this process, which has a worker already."""
    count_frames(clip)
    loader = DataLoader(Windows(clip), batch_size=None, num_workers=2)
    for frame, right in zip(loader, expected, strict=True):
        assert np.abs(np.asarray(frame).astype(int) - right).max() <= 2
    assert count_frames(clip) == FRAMES


@needs_proc
@pytest.mark.parametrize("fault", ["pass", HANG], ids=["waiting", "hung"])
def test_a_worker_ends_with_its_parent(clip: Path, tmp_path: Path, fault: str) -> None:
    note = f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')"
    (tmp_path / "decord.py").write_text(DECORD.format(fault=f"{note}; {fault}"))
    code = (
        "import pathlib, sys, time; from lisa_video.video import read_video; "
        "read_video(pathlib.Path(sys.argv[1])); time.sleep(600)"
    )
    paths = [str(tmp_path), str(Path(__file__).parents[2])]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(clip)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), LIMIT_VARIABLE: "2"},
    )
    noted = tmp_path / "pid"
    while not (noted.exists() and noted.read_text().endswith("\n")):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert has_ended(int(noted.read_text()))


def test_modules_of_the_current_folder_are_not_taken(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the user')")
    code = (
        "import pathlib, sys; sys.path.remove(''); from lisa_video.video import count_frames; "
        f"print(count_frames(pathlib.Path({str(clip)!r})))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == (f"{FRAMES}\n", "")


def test_streaming_holds_one_frame_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = moving_frames(count=40, size=(160, 128))
    encode(path, frames, g="8")
    list(iter_frames(path, 0, 1))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_frames(path)) == len(frames)
        assert tracemalloc.get_traced_memory()[1] < 4 * frames[0].nbytes
    finally:
        tracemalloc.stop()


def test_parts_of_a_stream(clip: Path, expected: np.ndarray) -> None:
    for start, stop in ((0, None), (0, 1), (7, 15), (17, None), (19, 20)):
        np.testing.assert_array_equal(list(iter_frames(clip, start, stop)), expected[start:stop])
    for start, stop, frame in ((20, None, 20), (-1, 3, -1), (5, 21, 20)):
        with pytest.raises(VideoError, match=f"has no frame {frame}, its frames are 0 to 19"):
            list(iter_frames(clip, start, stop))


@pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none(clip: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, limit)
    with pytest.raises(UserError, match=f"{LIMIT_VARIABLE}={limit}: must be a positive number"):
        count_frames(clip)
