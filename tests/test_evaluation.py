"""Scoring real, tiny videos of coloured dots, which a small detector locates by their colours."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lisa_video import evaluation
from lisa_video.cli import run_job
from lisa_video.errors import UserError
from lisa_video.evaluation import (
    check_evaluation,
    evaluate,
    format_scores,
    score_clips,
)
from lisa_video.evaluation_config import EvaluateConfig
from lisa_video.poses import PoseSequence
from lisa_video.video import write_video

WIDTH, HEIGHT, FRAMES, RADIUS = 96, 64, 5, 5
COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
BOX = 60  # longer side of the box around the dots


class DotDetector:
    """Finds keypoint k as the centre of all pixels near colour k."""

    name = "dots"

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = np.zeros((len(frames), 1, 18, 3), np.float32)
        for frame, pixels in enumerate(frames):
            for joint, colour in enumerate(COLOURS):
                rows, columns = np.nonzero(np.abs(pixels - colour).max(-1) < 100)
                if len(rows) > 10:
                    found[frame, 0, joint] = columns.mean() + 0.5, rows.mean() + 0.5, 1
        return found


def dot_poses(moved: float = 0.0) -> PoseSequence:
    """Six dots that drift to the right, the first of them `moved` pixels down."""
    points = np.array([[12, 12], [42, 12], [72, 12], [12, 42], [42, 42], [72, 42]], np.float32)
    keypoints = np.zeros((FRAMES, 1, 18, 3), np.float32)
    keypoints[:, 0, :6, :2] = points
    keypoints[:, 0, :6, 2] = 1
    keypoints[:, 0, :6, 0] += np.arange(FRAMES)[:, None]
    keypoints[:, 0, 0, 1] += moved
    return PoseSequence(keypoints, WIDTH, HEIGHT, fps=8.0, detector="ground-truth")


def dot_frames(poses: PoseSequence, joints: int = 6) -> NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    frames = np.zeros((len(poses.keypoints), HEIGHT, WIDTH, 3), np.uint8)
    for frame, people in zip(frames, poses.keypoints, strict=True):
        for (column, row, _), colour in zip(people[0, :joints], COLOURS, strict=False):
            frame[(x - column) ** 2 + (y - row) ** 2 <= RADIUS**2] = colour
    return frames


@pytest.fixture
def folders(tmp_path: Path) -> EvaluateConfig:
    """Two clips: "exact" follows its poses, in "moved" the first dot is 9 pixels off (0.15)."""
    for name, moved in {"exact": 0.0, "moved": 9.0}.items():
        for folder, clip in {"videos": dot_poses(moved), "truth": dot_poses()}.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            write_video(tmp_path / folder / f"{name}.mp4", dot_frames(clip), fps=8.0)
        (tmp_path / "poses").mkdir(exist_ok=True)
        dot_poses().save(tmp_path / "poses" / f"{name}.npz")
    return EvaluateConfig(
        videos=tmp_path / "videos",
        poses=tmp_path / "poses",
        ground_truth=tmp_path / "truth",
        json=tmp_path / "scores.json",
    )


@pytest.fixture(autouse=True)
def _dots_stand_in_for_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "build_detector", lambda name, weights: DotDetector())


def test_scores_of_clips_in_memory() -> None:
    asked, shown = dot_poses(), dot_poses(moved=9.0)
    scores = score_clips(
        [("exact", dot_frames(asked), asked), ("moved", dot_frames(shown), asked)], DotDetector()
    )
    exact, moved = (tally.metrics() for tally in scores.clips.values())
    assert exact["pck@0.1"] == exact["pck@0.2"] == 1
    assert exact["keypoint_distance_px"] < 0.5
    assert moved["pck@0.1"] == pytest.approx(5 / 6)
    assert moved["pck@0.2"] == 1
    assert moved["keypoint_distance_px"] == pytest.approx(9 / 6, abs=0.1)
    assert moved["keypoint_distance"] == pytest.approx(9 / 6 / BOX, abs=0.01)
    total = scores.total.metrics()
    assert total["pck@0.1"] == pytest.approx(11 / 12)
    assert total["missing_rate"] == 0
    assert (scores.total.frames, scores.total.joints) == (2 * FRAMES, 2 * FRAMES * 6)


def test_poses_of_another_size_are_rescaled_to_the_clip() -> None:
    large = dot_poses().resized(4 * WIDTH, 2 * HEIGHT)
    scores = score_clips([("clip", dot_frames(dot_poses()), large)], DotDetector())
    assert scores.total.metrics()["keypoint_distance_px"] < 0.5


def test_joints_asked_for_outside_of_the_frame_are_not_scored() -> None:
    keypoints = dot_poses().keypoints.copy()
    keypoints[:, 0, 0, 0] = -4
    keypoints[:, 0, 5, 1] = HEIGHT + 4
    poses = replace(dot_poses(), keypoints=keypoints)
    scores = score_clips([("clip", dot_frames(poses), poses)], DotDetector())
    assert scores.total.joints == FRAMES * 4
    assert scores.total.metrics()["pck@0.1"] == 1


def test_joints_that_the_detector_lacks() -> None:
    frames = dot_frames(dot_poses(), joints=4)
    metrics = score_clips([("clip", frames, dot_poses())], DotDetector()).total.metrics()
    assert metrics["missing_rate"] == pytest.approx(1 / 3)
    assert metrics["pck@0.2"] == pytest.approx(2 / 3)
    black = score_clips([("clip", np.zeros_like(frames), dot_poses())], DotDetector())
    assert math.isnan(black.total.metrics()["keypoint_distance"])
    assert black.to_json()["keypoint_distance"] is None
    assert black.to_json()["missing_rate"] == 1
    assert "-" in format_scores(black, None)


def test_clips_that_cannot_be_scored_are_named() -> None:
    poses = dot_poses()
    frames = dot_frames(poses)
    nobody = replace(poses, keypoints=np.zeros_like(poses.keypoints))
    for clips, message in (
        ([], "no clips to score"),
        ([("a", frames[:-1], poses)], "a: the clip has 4 frames, its poses have 5"),
        ([("a", frames, nobody)], "a: the target poses have nobody to score"),
        ([("a", frames, poses), ("a", frames, poses)], "a: two clips have this id"),
    ):
        with pytest.raises(UserError, match=message):
            score_clips(clips, DotDetector())


def test_folders_are_scored_with_the_ceiling_beside(
    folders: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    check_evaluation(folders)
    evaluate(folders)
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["generated", "ceiling"]
    assert table.splitlines()[1].split() == ["pck@0.1", "0.9167", "1.0000"]
    assert "detector dots, 2 clips, 10 frames" in table

    assert folders.json is not None
    result = json.loads(folders.json.read_text())
    assert result["pck@0.1"] == pytest.approx(11 / 12)
    assert (result["detector"], result["clips"], result["frames"]) == ("dots", 2, 10)
    assert result["per_clip"]["exact"]["pck@0.1"] == 1
    assert result["per_clip"]["moved"]["pck@0.1"] == pytest.approx(5 / 6)
    assert result["ceiling"]["pck@0.1"] == 1
    assert result["ceiling"]["keypoint_distance_px"] < 1
    assert {"python", "lisa_video", "torch"} <= result["versions"].keys()


def test_without_ground_truth_the_ceiling_is_said_to_be_unmeasured(
    folders: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(replace(folders, ground_truth=None))
    assert "ceiling not measured" in capsys.readouterr().out
    assert folders.json is not None
    assert json.loads(folders.json.read_text())["ceiling"] is None


def test_the_same_clip_in_other_containers(tmp_path: Path) -> None:
    import cv2

    frames = dot_frames(dot_poses())
    (tmp_path / "videos" / "images").mkdir(parents=True)
    (tmp_path / "poses").mkdir()
    np.save(tmp_path / "videos" / "array.npy", frames)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "videos" / "images" / f"{index}.png"), frame[..., ::-1])
    for name in ("array", "images"):
        dot_poses().save(tmp_path / "poses" / f"{name}.npz")
    config = EvaluateConfig(tmp_path / "videos", tmp_path / "poses", json=tmp_path / "scores.json")
    evaluate(config)
    clips = json.loads((tmp_path / "scores.json").read_text())["per_clip"]
    assert clips["array"] == clips["images"]
    assert clips["array"]["pck@0.1"] == 1


# Refusals: each is one line, exit code 2, and leaves no file.


def poses_with(**change: object) -> Callable[[EvaluateConfig], None]:
    """Write "moved.npz" again, as NumPy arrays, with some of them changed."""

    def spoil(config: EvaluateConfig) -> None:
        path = config.poses / "moved.npz"
        with np.load(path, allow_pickle=False) as stored:
            np.savez(path, **{**stored, **change})

    return spoil


def _unmatched_video(config: EvaluateConfig) -> None:
    (config.poses / "moved.npz").unlink()


def _unmatched_poses(config: EvaluateConfig) -> None:
    (config.videos / "exact.mp4").unlink()


def _unmatched_truth(config: EvaluateConfig) -> None:
    assert config.ground_truth is not None
    (config.ground_truth / "exact.mp4").unlink()


def _empty_videos(config: EvaluateConfig) -> None:
    for path in config.videos.iterdir():
        path.unlink()


def _empty_poses(config: EvaluateConfig) -> None:
    for path in config.poses.iterdir():
        path.unlink()


def _truncated_video(config: EvaluateConfig) -> None:
    path = config.videos / "moved.mp4"
    path.write_bytes(path.read_bytes()[:200])


def _truncated_poses(config: EvaluateConfig) -> None:
    path = config.poses / "moved.npz"
    path.write_bytes(path.read_bytes()[:100])


def _shorter_video(config: EvaluateConfig) -> None:
    (config.videos / "moved.mp4").unlink()
    write_video(config.videos / "moved.mp4", dot_frames(dot_poses())[:3], fps=8.0)


def _longer_truth(config: EvaluateConfig) -> None:
    assert config.ground_truth is not None
    (config.ground_truth / "moved.mp4").unlink()
    frames = dot_frames(dot_poses())
    np.save(config.ground_truth / "moved.npy", np.concatenate([frames, frames]))


def _result_exists(config: EvaluateConfig) -> None:
    assert config.json is not None
    config.json.write_text("{}")


NAN = dot_poses().keypoints.copy()
NAN[3, 0, 2] = np.nan


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_unmatched_video, ["moved.mp4", "no pose file of that name"]),
        (_unmatched_poses, ["exact.npz", "no clip of that name"]),
        (_unmatched_truth, ["exact.npz", "no clip of that name", "truth"]),
        (_empty_videos, ["videos: no clip here"]),
        (_empty_poses, ["poses: no pose file"]),
        (_truncated_video, ["moved.mp4"]),
        (_truncated_poses, ["moved.npz"]),
        (_shorter_video, ["moved.mp4: the clip has 3 frames, its poses have 5"]),
        (_longer_truth, ["moved.npy: the clip has 10 frames, its poses have 5"]),
        (_result_exists, ["scores.json: exists already"]),
        (poses_with(keypoints=NAN), ["moved.npz", "frame 3"]),
        (poses_with(keypoints=np.zeros_like(NAN)), ["moved.npz"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refusals(
    folders: EvaluateConfig,
    spoil: Callable[[EvaluateConfig], None],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(folders)
    before = folders.json.read_text() if folders.json and folders.json.exists() else None
    arguments = [f"--{key}={value}" for key, value in vars(folders).items() if value is not None]
    with pytest.raises(SystemExit) as end:
        run_job(EvaluateConfig, evaluate, check=check_evaluation, description="", argv=arguments)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0], lines[0]
    after = folders.json.read_text() if folders.json and folders.json.exists() else None
    assert after == before


def test_an_unknown_detector_is_refused_by_the_script(folders: EvaluateConfig) -> None:
    import subprocess

    script = Path(__file__).parents[1] / "pipelines" / "evaluate.py"
    done = subprocess.run(
        [
            sys.executable,
            script,
            f"--videos={folders.videos}",
            f"--poses={folders.poses}",
            "--detector=eyes",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "eyes" in done.stderr
