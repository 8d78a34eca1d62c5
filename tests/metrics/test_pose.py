"""Pose metrics against values worked out by hand, and against mmpose's own test cases."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.metrics.pose import keypoint_distance, match_poses, matched_pck, pck

Keypoints = NDArray[np.float64]


def one_person(*points: tuple[float, float], confidence: float = 1.0) -> Keypoints:
    """(1, 1, K, 3)."""
    return np.array([[[(x, y, confidence) for x, y in points]]], dtype=float)


def random_people(seed: int, frames: int = 3, people: int = 2, keypoints: int = 18) -> Keypoints:
    """People side by side, 60 pixels wide and 80 apart."""
    generator = np.random.default_rng(seed)
    poses = np.ones((frames, people, keypoints, 3))
    poses[..., :2] = generator.uniform(0, 60, (frames, people, keypoints, 2))
    poses[..., 0] += 80.0 * np.arange(people)[:, None]
    return poses


def moved(poses: Keypoints, seed: int, spread: float) -> Keypoints:
    noise = np.random.default_rng(seed).normal(0, spread, (*poses.shape[:-1], 2))
    return np.concatenate([poses[..., :2] + noise, poses[..., 2:]], axis=-1)


def test_pck_by_hand() -> None:
    # Box 30 x 40: max side 40, diagonal 50. Distances 0, 3, 4 and 5 pixels.
    target = one_person((0, 0), (30, 0), (30, 40), (0, 40))
    predicted = one_person((0, 0), (33, 0), (30, 44), (3, 44))
    result = pck(predicted, target, 0.1)
    assert (result.correct, result.visible) == (2, 4)  # 4 px is not strictly below 0.1 * 40
    assert result.value == 0.5
    np.testing.assert_array_equal(result.per_frame, [0.5])
    np.testing.assert_array_equal(result.per_joint, [1, 1, 0, 0])
    assert pck(predicted, target, 0.099, "diagonal").correct == 3  # within 4.95 px
    assert pck(predicted, target, 0.2).value == 1


def test_distance_by_hand() -> None:
    target = one_person((0, 0), (30, 0), (30, 40), (0, 40))
    predicted = one_person((0, 0), (33, 0), (30, 44), (3, 44))
    result = keypoint_distance(predicted, target)
    assert result.pixels == pytest.approx(3.0)
    assert result.fraction == pytest.approx(3.0 / 40)
    assert keypoint_distance(predicted, target, "diagonal").fraction == pytest.approx(3.0 / 50)
    assert (result.missing_rate, result.present, result.visible) == (0, 4, 4)


@pytest.mark.parametrize(
    ("lengths", "per_joint", "value", "visible"),
    [
        ([10, 10], [1, 0.5, np.nan, 1, 1], 0.875, 8),
        ([0, 10], [1, 1, np.nan, 1, 1], 1.0, 4),
        ([0, 0], [np.nan] * 5, np.nan, 0),
    ],
)
def test_mmpose_keypoint_pck_accuracy(
    lengths: list[float], per_joint: list[float], value: float, visible: int
) -> None:
    """mmpose tests/test_evaluation/test_functional/test_keypoint_eval.py; two instances there are
    two frames here, and its explicit normalisation stands in for the box."""
    target, predicted = np.ones((2, 1, 5, 3)), np.ones((2, 1, 5, 3))
    target[..., :2] = predicted[..., :2] = 0
    target[0, 0, :, :2] = [[10, 0], [10, 10], [-1, 0], [30, 30], [0, 10]]
    predicted[0, 0, :, :2] = [[10, 0], [20, 20], [0, 0], [30, 30], [0, 10]]
    target[:, 0, 2, 2] = 0
    matched = match_poses(predicted, target, "max_side")
    result = matched_pck(replace(matched, lengths=np.array(lengths, float)[:, None]), 0.5)
    np.testing.assert_array_equal(result.per_joint, per_joint)
    assert result.value == pytest.approx(value, nan_ok=True)
    assert result.visible == visible


def test_mmpose_keypoint_epe() -> None:
    """The end-point error of the same file: mean of 4, 8, 10 sqrt 2 and 20."""
    target = one_person((10, 0), (10, 10), (-1, -1), (30, 30), (0, 10))
    predicted = one_person((10, 4), (10, 18), (0, 0), (40, 40), (20, 10))
    target[..., 2, 2] = 0
    result = keypoint_distance(predicted, target)
    assert result.pixels == pytest.approx(11.5355339)
    assert result.fraction == pytest.approx(11.5355339 / 30)


def test_only_confident_target_joints_count_and_shape_the_box() -> None:
    target = one_person((0, 0), (10, 0), (500, 500), (700, 0))
    target[0, 0, 2:, 2] = [0.1, 0.0]
    predicted = one_person((0, 0), (11.5, 0), (0, 0), (0, 0))
    result = pck(predicted, target, 0.1)
    assert (result.correct, result.visible) == (1, 2)
    assert pck(predicted, target, 0.2).correct == 2
    target[0, 0, 2, 2] = 0.11
    assert pck(predicted, target, 0.1).visible == 3


def test_absent_predicted_joint_is_wrong_and_missing_but_not_a_distance() -> None:
    target = one_person((0, 0), (10, 0), (0, 10), (10, 10))
    predicted = target.copy()
    predicted[0, 0, 0] = 0  # lies on the target, still not detected
    assert pck(predicted, target, 0.2).value == 0.75
    result = keypoint_distance(predicted, target)
    assert (result.pixels, result.missing_rate, result.present) == (0, 0.25, 3)
    nobody = keypoint_distance(np.zeros((1, 0, 4, 3)), target)
    assert np.isnan(nobody.pixels) and np.isnan(nobody.fraction) and nobody.missing_rate == 1
    assert pck(np.zeros((1, 0, 4, 3)), target, 0.2).value == 0


def test_frames_without_a_scorable_person_are_left_out() -> None:
    target = np.concatenate([one_person((0, 0), (10, 0)), one_person((5, 5), (5, 5))])
    target[1, 0, 1, 2] = 0  # a single joint has no box
    target = np.concatenate([target, np.zeros((1, 1, 2, 3))])
    result = pck(target, target, 0.1)
    assert (result.value, result.visible) == (1, 2)
    np.testing.assert_array_equal(result.per_frame, [1, np.nan, np.nan])


@pytest.mark.parametrize("scale", [0.01, 7.0])
def test_fractions_do_not_depend_on_scale_or_position(scale: float) -> None:
    target = random_people(seed=0)
    predicted = moved(target, seed=1, spread=5.0)
    scaled_target, scaled_predicted = target.copy(), predicted.copy()
    for poses in (scaled_target, scaled_predicted):
        poses[..., :2] = poses[..., :2] * scale + [40.0, -30.0]
    before, after = pck(predicted, target, 0.1), pck(scaled_predicted, scaled_target, 0.1)
    assert 0 < before.value < 1 and before.correct == after.correct
    np.testing.assert_array_equal(before.per_joint, after.per_joint)
    far, near = (
        keypoint_distance(predicted, target),
        keypoint_distance(scaled_predicted, scaled_target),
    )
    assert near.fraction == pytest.approx(far.fraction)
    assert near.pixels == pytest.approx(far.pixels * scale)


def test_people_are_matched_whatever_their_order_in_each_frame() -> None:
    target = random_people(seed=2, people=3)
    predicted = moved(target, seed=3, spread=3.0)
    shuffled = np.stack([predicted[0, [2, 0, 1]], predicted[1, [1, 0, 2]], predicted[2]])
    expected, result = pck(predicted, target, 0.1), pck(shuffled, target, 0.1)
    assert 0.5 < expected.value < 1
    np.testing.assert_array_equal(result.per_joint, expected.per_joint)
    assert keypoint_distance(shuffled, target) == keypoint_distance(predicted, target)


def test_one_joint_thrown_far_away_does_not_swap_people() -> None:
    target = random_people(seed=4, frames=1)
    predicted = target.copy()
    predicted[0, 0, 0, :2] = 1e5
    assert pck(predicted, target, 0.1).correct == 35


def test_extra_and_lacking_people() -> None:
    target = random_people(seed=5)
    assert pck(target[:, :1], target, 0.1).value == 0.5
    assert keypoint_distance(target[:, :1], target).missing_rate == 0.5
    assert pck(target, target[:, 1:], 0.1).value == 1
    empty_first = np.concatenate([np.zeros_like(target[:, :1]), target], axis=1)
    assert pck(empty_first, target, 0.1).value == 1


def test_nan_is_refused_in_present_joints_and_ignored_in_absent_ones() -> None:
    target = random_people(seed=6)
    predicted = target.copy()
    predicted[1, 0, 4] = [np.nan, np.inf, 0]
    assert pck(predicted, target, 0.1).correct == target[..., 2].size - 1
    for poses, name in ((target, "target"), (predicted, "predicted")):
        broken = poses.copy()
        broken[2, 1, 7, 0] = np.nan
        pair = (broken, target) if name == "predicted" else (predicted, broken)
        with pytest.raises(UserError, match=f"{name} poses .* frame 2, person 1, keypoint 7"):
            pck(*pair, 0.1)
    target[0, 0, 3, 2] = np.nan
    with pytest.raises(UserError, match="frame 0, person 0, keypoint 3"):
        keypoint_distance(predicted, target)


@pytest.mark.parametrize("people", [0, 1])
def test_nobody_in_the_target_is_a_user_error(people: int) -> None:
    target = np.zeros((4, people, 18, 3))
    with pytest.raises(UserError, match="nobody to score: no frame of 4"):
        pck(np.ones((4, 1, 18, 3)), target, 0.1)
