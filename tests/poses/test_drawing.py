"""Drawn skeletons: where ink is, how much, and what size does to it."""

import numpy as np
import pytest
from einops import reduce

from lisa_video.poses import draw_pose_frames
from lisa_video.poses.drawing import line_width
from lisa_video.poses.skeletons import OPENPOSE_18, SKELETONS


def person(**joints: tuple[float, float, float]) -> np.ndarray:
    """(1, 1, 18, 3) with the named joints only."""
    keypoints = np.zeros((1, 1, 18, 3), np.float32)
    keypoints[0, 0, [OPENPOSE_18.index(name) for name in joints]] = list(joints.values())
    return keypoints


def standing(seed: int = 0) -> np.ndarray:
    """One person with all joints at random places well inside 200 x 100 pixels."""
    keypoints = np.random.default_rng(seed).uniform(0.1, 0.9, (1, 1, 18, 3)).astype(np.float32)
    return keypoints * np.array([200, 100, 1], np.float32)


def test_frames_have_the_size_asked_for_and_stay_in_range() -> None:
    keypoints = np.concatenate([standing(0), standing(1)])
    frames = draw_pose_frames(keypoints, (200, 100), (96, 64))
    assert frames.shape == (2, 3, 64, 96) and frames.dtype == np.float32
    assert frames.min() == 0 and 0.5 < frames.max() <= 1


def test_a_limb_is_where_its_joints_are_in_its_colour() -> None:
    keypoints = person(neck=(100, 10, 1), r_shoulder=(20, 10, 1))
    frame = draw_pose_frames(keypoints, (200, 100), (400, 200))[0]
    np.testing.assert_allclose(frame[:, 20, 120], [1, 0, 0])
    assert frame[:, 40:].max() == 0
    assert frame[:, :, 225:].max() == 0


def test_twice_the_size_is_the_same_picture() -> None:
    """The line width follows the size: 2x averaged over 2 x 2 blocks is nearly 1x."""
    keypoints = standing()
    once = draw_pose_frames(keypoints, (200, 100), (200, 100))
    twice = draw_pose_frames(keypoints, (200, 100), (400, 200))
    shrunk = reduce(twice, "f c (h a) (w b) -> f c h w", "mean", a=2, b=2)
    assert np.abs(shrunk - once).mean() < 0.004
    assert np.abs(shrunk - once).max() < 0.3
    assert abs(shrunk.mean() / once.mean() - 1) < 0.02


def test_ink_moves_with_the_joint_by_less_than_a_pixel() -> None:
    def centre(x: float) -> float:
        frame = draw_pose_frames(person(nose=(x, 32, 1)), (64, 64), (64, 64))[0].max(axis=0)
        return float((frame.sum(axis=0) * (np.arange(64) + 0.5)).sum() / frame.sum())

    assert centre(30.5) == pytest.approx(30.5, abs=0.02)
    assert centre(30.8) == pytest.approx(30.8, abs=0.1)


def test_absent_joints_leave_no_mark_and_take_their_limbs_along() -> None:
    keypoints = person(neck=(100, 50, 1), r_shoulder=(20, 50, 0))
    frame = draw_pose_frames(keypoints, (200, 100), (200, 100))[0]
    only_neck = draw_pose_frames(person(neck=(100, 50, 1)), (200, 100), (200, 100))[0]
    np.testing.assert_array_equal(frame, only_neck)
    assert draw_pose_frames(np.zeros((1, 2, 18, 3), np.float32), (9, 9), (16, 16)).max() == 0
    assert draw_pose_frames(np.zeros((2, 0, 18, 3), np.float32), (9, 9), (16, 16)).max() == 0


def test_a_limb_fades_with_its_less_sure_end() -> None:
    keypoints = person(neck=(180, 50, 0.8), r_shoulder=(20, 50, 0.3))
    frame = draw_pose_frames(keypoints, (200, 100), (200, 100))[0]
    np.testing.assert_allclose(frame[:, 50, 100], [0.3, 0, 0], atol=1e-6)


def test_the_order_of_people_does_not_matter() -> None:
    people = np.concatenate([standing(0), standing(1)], axis=1)
    one = draw_pose_frames(people, (200, 100), (64, 64))
    other = draw_pose_frames(people[:, ::-1], (200, 100), (64, 64))
    np.testing.assert_array_equal(one, other)


def test_people_partly_outside_are_cut_off() -> None:
    keypoints = person(neck=(-50, 10, 1), r_shoulder=(20, 10, 1), r_elbow=(1e6, 1e6, 1))
    frame = draw_pose_frames(keypoints, (40, 40), (40, 40))[0]
    # 1.2 pixels wide along the border of rows 9 and 10, which share the line evenly.
    np.testing.assert_allclose(frame[:, 9:11, 2], [[0.6, 0.6], [0, 0], [0, 0]], atol=1e-6)


def test_lines_never_get_thinner_than_can_be_seen() -> None:
    assert line_width((32, 16)) == 1.2
    assert line_width((512, 256)) == pytest.approx(11.264)


# Hands and face.


def test_absent_hands_and_face_leave_the_body_as_it_is() -> None:
    body = standing()
    expected = draw_pose_frames(body, (200, 100), (96, 64))
    for names in SKELETONS.values():
        whole = np.concatenate([body, np.zeros((1, 1, len(names) - 18, 3), np.float32)], axis=2)
        np.testing.assert_array_equal(draw_pose_frames(whole, (200, 100), (96, 64)), expected)


def test_fingers_are_thin_lines_with_blue_joints_and_faces_white_dots() -> None:
    names = SKELETONS["openpose18_hands_face"]
    keypoints = np.zeros((1, 1, len(names), 3), np.float32)
    keypoints[0, 0, names.index("r_hand_root")] = [20.5, 20.5, 1]
    keypoints[0, 0, names.index("r_hand_thumb_1")] = [120.5, 20.5, 1]
    keypoints[0, 0, names.index("face_30")] = [100.5, 80.5, 0.5]
    frame = draw_pose_frames(keypoints, (200, 100), (200, 100))[0]
    np.testing.assert_allclose(frame[:, 20, 70], [1, 0, 0])
    np.testing.assert_allclose(frame[2, 20, [20, 120]], 1, atol=0.01)
    assert (frame[0, :, 60] > 0).sum() < line_width((200, 100))
    np.testing.assert_allclose(frame[:, 80, 100], 0.5, atol=0.01)
