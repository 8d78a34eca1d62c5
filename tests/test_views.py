"""What views show of clips."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.mirroring import mirrored_frames, mirrored_poses
from lisa_video.poses import PoseSequence
from lisa_video.views import (
    ViewKey,
    cut_frames,
    cut_poses,
    draw_box,
    draw_flip,
    draw_pose_seed,
    draw_start,
    draw_stride,
    fit_frames,
    fit_poses,
    withheld,
)
from tests.dots import DOT, LENGTH, dot_centres, dot_clip

# Resizing.


def fit(
    frames: np.ndarray, poses: PoseSequence, size: tuple[int, int]
) -> tuple[np.ndarray, PoseSequence]:
    return fit_frames(frames, size), fit_poses(poses, size)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((48, 32), (48, 32)),
        ((48, 32), (32, 32)),
        ((48, 32), (24, 32)),
        ((31, 77), (64, 64)),
        ((200, 90), (33, 17)),
        ((90, 201), (64, 48)),
        ((320, 240), (16, 16)),
    ],
)
def test_a_dot_stays_where_its_keypoint_says(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    frames, poses = dot_clip(*source, radius=max(2, min(source) // 10))
    fitted, moved = fit(frames, poses, size)
    assert fitted.shape == (LENGTH, size[1], size[0], 3) and fitted.dtype == np.uint8
    assert (moved.width, moved.height) == size
    np.testing.assert_allclose(dot_centres(fitted), moved.keypoints[:, 0, DOT, :2], atol=0.25)
    assert (moved.keypoints[:, 0, 1:] == 0).all(), "absent joints stay at zero"


def test_the_aspect_is_kept_and_the_centre_cut_out() -> None:
    frames, poses = dot_clip(64, 32)
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], frames.shape)
    fitted, _ = fit(columns, poses, (16, 16))  # half the size, the middle 32 columns
    np.testing.assert_allclose(fitted[0, 0, :, 0], 16.5 + 2 * np.arange(16), atol=0.51)
    _, moved = fit(frames, poses, (16, 16))
    spans = [np.ptp(each.keypoints[:, 0, DOT, :2], axis=0) for each in (moved, poses)]
    np.testing.assert_allclose(spans[0], spans[1] / 2)


def test_joints_beyond_the_cut_keep_their_places() -> None:
    frames, poses = dot_clip(64, 32)
    poses.keypoints[:, 0, 1] = [2, 16, 0.5]
    _, moved = fit(frames, poses, (32, 32))
    np.testing.assert_allclose(moved.keypoints[:, 0, 1], [[-14, 16, 0.5]] * LENGTH)


def test_fitting_leaves_its_input_alone() -> None:
    frames, poses = dot_clip()
    fitted, moved = fit(frames, poses, (24, 16))
    fitted[:], moved.keypoints[:] = 7, 7
    again, expected = dot_clip()
    np.testing.assert_array_equal(frames, again)
    np.testing.assert_array_equal(poses.keypoints, expected.keypoints)


# Cuts.


def poses_like(poses: PoseSequence, keypoints: np.ndarray) -> PoseSequence:
    return replace(poses, keypoints=keypoints.astype(np.float32))


@pytest.mark.parametrize("centre", ["picture", "people"])
def test_a_dot_stays_under_its_keypoint_in_any_view(centre: Any) -> None:
    """Many random views of many shapes, cut, scaled and mirrored."""
    config = AugmentationConfig(flip=0.5, crop_scale=(0.3, 1.0), crop_shift=0.7, crop_centre=centre)
    rng = np.random.default_rng(0)
    seen, flipped = 0, 0
    for epoch in range(150):
        source = tuple(rng.integers(60, 200, 2).tolist())
        size = tuple(rng.integers(40, 90, 2).tolist())
        frames, poses = dot_clip(*source, frames=3, radius=5)
        key = ViewKey(0, epoch, "clip")
        box = draw_box(key, config, size, poses)
        left, top, width, height = box
        assert left >= 0 and top >= 0 and left + width <= source[0] and top + height <= source[1]
        pixels, moved = cut_frames(frames, box, size), cut_poses(poses, box, size)
        if draw_flip(key, config):
            pixels, moved = mirrored_frames(pixels), mirrored_poses(moved)
            flipped += 1
        assert pixels.shape == (3, size[1], size[0], 3)
        assert (moved.width, moved.height) == size
        places = moved.keypoints[:, 0, DOT, :2]
        radius = 5 * max(size[0] / width, size[1] / height)
        inside = ((places > radius + 1) & (places < np.array(size) - radius - 1)).all()
        if inside:
            seen += 1
            np.testing.assert_allclose(dot_centres(pixels), places, atol=0.3)
    assert 40 < flipped < 110 and seen > 40


def test_cuts_have_the_scale_and_the_shape_asked_for() -> None:
    _, poses = dot_clip(200, 100)
    config = AugmentationConfig(crop_scale=(0.5, 0.8), crop_shift=1.0)
    boxes = np.array([draw_box(ViewKey(0, e, "a"), config, (40, 40), poses) for e in range(500)])
    left, top, width, height = boxes.T
    assert (np.abs(width - height) <= 1).all()
    assert width.min() == 50 and 79 <= width.max() <= 80
    assert left.min() < 3 and (left + width).max() > 197 and top.min() < 2
    assert abs((left + width / 2).mean() - 100) < 5, "spread about the centre"


def test_cuts_around_people_follow_them() -> None:
    _, poses = dot_clip(200, 100)
    keypoints = np.zeros_like(poses.keypoints)
    keypoints[:, 0, 3] = [150, 30, 0.9]
    keypoints[:, 0, 4] = [160, 50, 0.9]
    keypoints[:, 0, 5] = [5, 95, 0.1]  # unsure: nobody to centre on
    config = AugmentationConfig(crop_scale=(0.4, 0.4), crop_centre="people")
    key = ViewKey(0, 0, "a")
    assert draw_box(key, config, (40, 40), poses_like(poses, keypoints)) == (135, 20, 40, 40)
    keypoints[:, 0, 3:5, 0] += 40
    assert draw_box(key, config, (40, 40), poses_like(poses, keypoints)) == (160, 20, 40, 40)
    assert draw_box(key, config, (40, 40), poses_like(poses, keypoints * 0)) == (80, 30, 40, 40)


def test_switching_one_draw_on_leaves_the_others() -> None:
    _, poses = dot_clip(64, 48)
    key = ViewKey(3, 1, "clip")
    cut = AugmentationConfig(crop_scale=(0.4, 0.9), crop_shift=0.5)
    more = replace(cut, flip=0.5, joint_dropout=0.5)
    assert draw_box(key, cut, (32, 32), poses) == draw_box(key, more, (32, 32), poses)
    draws = {draw_pose_seed(ViewKey(0, epoch, "clip")) for epoch in range(100)}
    assert len(draws) == 100
    starts = [draw_start(ViewKey(0, epoch, "clip"), 1000) for epoch in range(100)]
    strides = [draw_stride(ViewKey(0, epoch, "clip"), range(1000)) for epoch in range(100)]
    assert sum(start == stride for start, stride in zip(starts, strides, strict=True)) < 5


# What is withheld.


def test_withheld_joints_and_frames_are_absent_and_weigh_nothing() -> None:
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0.1, 1, (400, 2, 18, 3)).astype(np.float32)
    poses = PoseSequence(keypoints, 8, 8, fps=8.0)
    frames = withheld(poses, AugmentationConfig(frame_dropout=0.25), seed=1)
    gone = ~frames.keypoints.any(axis=(1, 2, 3))
    assert 70 < gone.sum() < 130
    np.testing.assert_array_equal(frames.keypoints[~gone], keypoints[~gone])
    np.testing.assert_array_equal(frames.frame_weights() == 0, gone)

    joints = withheld(poses, AugmentationConfig(joint_dropout=0.5), seed=1)
    kept = joints.keypoints.any(axis=-1)
    assert (kept == kept[:1]).all(), "for the whole window"
    assert 0 < kept[0].sum() < 36 and (kept[0, 0] != kept[0, 1]).any()
    np.testing.assert_array_equal(joints.keypoints[kept], keypoints[kept])
    expected = np.where(kept, keypoints[..., 2], 0).mean(axis=-1).max(axis=-1)
    np.testing.assert_allclose(joints.frame_weights(), expected, rtol=1e-6)
    again = withheld(poses, AugmentationConfig(joint_dropout=0.5), seed=1)
    np.testing.assert_array_equal(joints.keypoints, again.keypoints)
