"""The right part of a video's sound comes out in time, or the reason why it cannot."""

from pathlib import Path

import av
import numpy as np
import pytest

from lisa_video.video import VideoError, probe_video, read_video, write_video
from lisa_video.video.sound import cut_sound, join_sound
from tests.broken_videos import moving_frames
from tests.videos import tones, write_sounding_video

FPS = 10


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, with tones in the second and the fourth."""
    path = tmp_path_factory.mktemp("sound") / "driver.mp4"
    return write_sounding_video(path, moving_frames(count=40), FPS, [(1, 2), (3, 3.5)])


def spans(path: Path) -> list[tuple[float, float]]:
    """Seconds from which to which there is a tone."""
    loud = np.concatenate([[False], tones(path) > 0.05, [False]])
    edges = np.flatnonzero(np.diff(loud.astype(int))) / 100
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize(
    ("start", "seconds", "expected"),
    [
        (0.0, 4.0, [(1, 2), (3, 3.5)]),
        (0.5, 2.0, [(0.5, 1.5)]),
        (1.5, 1.0, [(0, 0.5)]),
        (2.7, 9.0, [(0.3, 0.8)]),
    ],
)
def test_a_part_of_the_sound_is_cut_in_time(
    driver: Path, tmp_path: Path, start: float, seconds: float, expected: list
) -> None:
    assert cut_sound(driver, start, seconds, tmp_path / "sound.mp4")
    np.testing.assert_allclose(spans(tmp_path / "sound.mp4"), expected, atol=0.03)
    length = len(tones(tmp_path / "sound.mp4")) / 100
    assert length == pytest.approx(min(seconds, 4 - start), abs=0.05)


def test_joined_pictures_stay_bit_for_bit_and_sound_in_time(driver: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4", moving_frames(seed=1, count=20), FPS)
    cut_sound(driver, 0.5, 2.0, tmp_path / "sound.mp4")
    joined = tmp_path / "joined.mp4"
    join_sound(tmp_path / "silent.mp4", tmp_path / "sound.mp4", joined)
    silent = read_video(tmp_path / "silent.mp4")
    np.testing.assert_array_equal(read_video(joined).frames, silent.frames)
    assert probe_video(joined).fps == FPS
    np.testing.assert_allclose(spans(joined), [(0.5, 1.5)], atol=0.03)
    with av.open(str(joined)) as container:
        names = [stream.codec_context.name for stream in container.streams]
    assert names == ["h264", "aac"]
    content = joined.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "it plays while it loads"


def test_other_codecs_are_heard(tmp_path: Path) -> None:
    driver = write_sounding_video(
        tmp_path / "driver.mkv", moving_frames(count=20), FPS, [(1, 2)], codec="pcm_s16le"
    )
    assert cut_sound(driver, 0.5, 1.5, tmp_path / "sound.mp4")
    np.testing.assert_allclose(spans(tmp_path / "sound.mp4"), [(0.5, 1.5)], atol=0.03)


def test_a_silent_video_has_no_sound(tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4", moving_frames(), FPS)
    assert not cut_sound(tmp_path / "silent.mp4", 0, 1, tmp_path / "sound.mp4")
    assert not (tmp_path / "sound.mp4").exists()


def test_what_hangs_or_is_no_video_is_refused(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.mp4").write_text("a shopping list")
    with pytest.raises(VideoError, match=r"text\.mp4: not a video, or broken from its start"):
        cut_sound(tmp_path / "text.mp4", 0, 1, tmp_path / "sound.mp4")
    monkeypatch.setattr("lisa_video.video.sound.START_SECONDS", -9.95)
    monkeypatch.setenv("LISA_VIDEO_DECODE_SECONDS", "9")
    with pytest.raises(VideoError, match=r"driver\.mp4: decoding its sound stood still"):
        cut_sound(driver, 0, 1, tmp_path / "sound.mp4")
