"""From a real video to a pose file, and what is refused on the way."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.assets import fetch_asset
from lisa_video.errors import UserError
from lisa_video.extraction import preview_frames
from lisa_video.extraction.job import check_extraction, extract
from lisa_video.extraction_config import ExtractPosesConfig
from lisa_video.poses import PoseSequence
from lisa_video.video import read_video, write_video

JOB = Path(__file__).parents[2] / "pipelines" / "extract_poses.py"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of a talking man at 25 frames per second, 176 x 144 pixels."""
    path = tmp_path_factory.mktemp("clip") / "man.mp4"
    source = read_video(fetch_asset("clips") / "carphone_pristine.mp4")
    write_video(path, source.frames[:10], fps=25)
    return path


@pytest.fixture
def config(clip: Path, tmp_path: Path) -> ExtractPosesConfig:
    return ExtractPosesConfig(clip, tmp_path / "man.npz", preview=tmp_path / "man.mp4")


def test_the_file_holds_the_poses_of_the_video(
    config: ExtractPosesConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.preview is not None
    extract(config)
    poses = PoseSequence.load(config.out, require_people=True)
    assert poses.keypoints.shape == (10, 1, 18, 3)
    assert (poses.width, poses.height) == (176, 144)
    assert poses.fps == pytest.approx(25)
    assert poses.detector == "blazepose-full"
    assert "a person in 10 of 10 frames" in capsys.readouterr().out
    preview = read_video(config.preview)
    assert len(preview.frames) == 10 and preview.fps == pytest.approx(25)


def test_the_preview_shows_the_source_beside_its_skeleton() -> None:
    keypoints = np.zeros((2, 1, 18, 3), np.float32)
    keypoints[:, 0, :2] = [[50, 10, 1], [50, 70, 1]]
    frames = np.full((2, 81, 99, 3), 200, np.uint8)
    preview = preview_frames(frames, PoseSequence(keypoints, 99, 81, fps=5))
    assert preview.dtype == np.uint8
    assert preview.shape[1] % 2 == preview.shape[2] % 2 == 0
    middle = preview[0, preview.shape[1] // 2]
    half = len(middle) // 2
    np.testing.assert_allclose(middle[half // 2].astype(int), 200, atol=1)
    # The limb from neck to nose is pure blue, in the middle of the right panel, on black.
    right = middle[half + 8 :]
    blue = (right[:, 2] > 200) & (right[:, :2].max(axis=1) < 60)
    assert 0.4 < np.flatnonzero(blue).mean() / len(right) < 0.6
    assert (right[4 : len(right) // 3] == 0).all()


def test_a_video_without_people_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "noise.mp4", noise, fps=8)
    config = ExtractPosesConfig(tmp_path / "noise.mp4", tmp_path / "noise.npz")
    with pytest.raises(UserError, match=r"noise\.mp4: blazepose-full found no person .* 3 frames"):
        extract(config)
    assert not config.out.exists()


def test_an_unreadable_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    config = ExtractPosesConfig(tmp_path / "text.mp4", tmp_path / "text.npz")
    with pytest.raises(UserError, match=r"text\.mp4"):
        extract(config)


def test_what_can_be_wrong_beforehand_is_checked_beforehand(config: ExtractPosesConfig) -> None:
    check_extraction(config)
    folder = config.out.parent
    with pytest.raises(UserError, match=r"none\.mp4: no such video or folder"):
        check_extraction(replace(config, source=folder / "none.mp4"))
    with pytest.raises(UserError, match="unknown pose detector 'eyes', known: "):
        check_extraction(replace(config, detector="eyes"))
    with pytest.raises(UserError, match="none: no such folder of weights"):
        check_extraction(replace(config, weights=folder / "none"))
    with pytest.raises(UserError, match=r"deep.man\.npz: its folder does not exist"):
        check_extraction(replace(config, out=folder / "deep" / "man.npz"))
    config.out.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"man\.npz: exists already"):
        check_extraction(config)


def test_a_skeleton_that_the_detector_lacks_is_refused(config: ExtractPosesConfig) -> None:
    with pytest.raises(UserError, match="blazepose-full finds no more than openpose18; take"):
        extract(replace(config, skeleton="openpose18_hands"))


def test_file_names_say_what_they_hold(config: ExtractPosesConfig) -> None:
    with pytest.raises(UserError, match=r"out=a\.mp4: a pose file ends in \.npz"):
        check_extraction(replace(config, out=Path("a.mp4")))
    with pytest.raises(UserError, match=r"the preview ends in \.mp4"):
        replace(config, preview=Path("a.npz"))


def test_the_job_says_in_one_line_what_is_wrong(clip: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(JOB), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    output = tmp_path / "man.npz"
    dry = run(clip, "--out", output, "--dry-run")
    assert dry.returncode == 0 and "detector: blazepose" in dry.stdout
    assert not output.exists()
    output.write_bytes(b"precious")
    refused = run(clip, "--out", output)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"error: {output}: exists already; give another name or remove it first"
    ]
    assert output.read_bytes() == b"precious"
