"""Scoring clips of coloured dots, which a small detector locates by their colours."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.evaluation import score_clips
from tests.evaluation.dots import BOX, FRAMES, HEIGHT, WIDTH, DotDetector, dot_frames, dot_poses


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
