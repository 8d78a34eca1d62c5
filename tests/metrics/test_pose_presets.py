"""The presets' rules, each against values worked out by hand or the rules' own code."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from lisa_video.errors import UserError
from lisa_video.metrics.pose import keypoint_auc, object_keypoint_similarity, reference_lengths
from lisa_video.metrics.pose_presets import (
    POSE_PRESETS,
    frame_pck,
    pose_preset,
    tally_poses,
)
from lisa_video.poses.skeletons import OPENPOSE_18

STRICT, LISA, MMPOSE = (POSE_PRESETS[name] for name in ("strict", "lisa", "mmpose"))


def people(*boxes: tuple[float, float], frames: int = 1) -> np.ndarray:
    """(F, P, 18, 3): joints spread over boxes of 40 x 30 pixels at the corners given."""
    random = np.random.default_rng(0)
    poses = np.ones((frames, len(boxes), 18, 3))
    shape = random.uniform(0, 1, (18, 2))
    shape[0], shape[1] = 0, 1  # corners, so that the box is as wide and high as it says
    for person, corner in enumerate(boxes):
        poses[:, person, :, :2] = np.array(corner) + np.round(shape * [30, 40])
    return poses


# LISA: its own functions, written again from eval_scripts/metrics_realpose.py for this test.


def lisa_reference(target: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Mean over frames and micro average."""

    def persons(frame: np.ndarray) -> list[dict[str, np.ndarray]]:
        found = []
        for person in frame:
            scores = person[:, 2]
            points = np.where(scores[:, None] > 0, person[:, :2], 0)
            if (scores > 0).any():
                seen = points[scores > 0]
                box = np.concatenate([seen.min(0), seen.max(0)])
                found.append({"points": points, "scores": scores, "box": box})
        return found

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        overlap = np.prod(np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])))
        return overlap / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap + 1e-9)

    shares, correct, count = [], 0, 0
    for asked, found in zip(map(persons, target), map(persons, predicted), strict=True):
        if not asked:
            continue
        total = sum(int((person["scores"] > 0.1).sum()) for person in asked)
        right = 0
        if found:
            cost = np.array([[1 - iou(a["box"], f["box"]) for f in found] for a in asked])
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if cost[row, column] >= 1:
                    continue
                box = asked[row]["box"]
                limit = 0.2 * np.hypot(*np.maximum(box[2:] - box[:2], 1e-6))
                apart = np.linalg.norm(asked[row]["points"] - found[column]["points"], axis=1)
                right += int(((apart <= limit) & (asked[row]["scores"] > 0.1)).sum())
        if total:
            shares.append(right / total)
            correct, count = correct + right, count + total
    return float(np.mean(shares)), correct / count


@pytest.mark.parametrize("seed", range(5))
def test_lisa_agrees_with_the_authors_rules(seed: int) -> None:
    random = np.random.default_rng(seed)
    target = people((10, 10), (60, 20), (110, 5), frames=6)
    target[..., :2] += random.normal(0, 6, target[..., :2].shape)
    predicted = np.concatenate([target[:, [1, 0]], people((200, 100), frames=6)], axis=1)
    predicted[..., :2] += random.normal(0, 6, predicted[..., :2].shape)
    for poses in (target, predicted):
        poses[..., 2] = random.uniform(0, 1, poses.shape[:3]) * (
            random.random(poses.shape[:3]) > 0.3
        )
    target[2] = 0  # nobody asked for in one frame, nobody found in another
    predicted[4] = 0
    mean, micro = lisa_reference(target, predicted)
    metrics = tally_poses(predicted, target, LISA).metrics()
    assert metrics["pck@0.2"] == pytest.approx(mean, abs=1e-12)
    assert metrics["pck_micro@0.2"] == pytest.approx(micro, abs=1e-12)


def test_lisa_compares_joints_that_were_not_found_at_the_origin() -> None:
    """Near the corner of the picture that makes them correct; strict calls them missing."""
    target = people((0, 0))
    predicted = target.copy()
    predicted[0, 0, 0] = 0  # its target is at (0, 0)
    predicted[0, 0, 1] = 0  # its target is at (30, 40)
    lisa, strict = (tally_poses(predicted, target, rules).metrics() for rules in (LISA, STRICT))
    assert lisa["pck@0.2"] == pytest.approx(17 / 18)
    assert strict["pck@0.2"] == pytest.approx(16 / 18)
    assert strict["missing_rate"] == pytest.approx(2 / 18)


def test_a_joint_exactly_at_the_threshold() -> None:
    target = people((100, 100))
    predicted = target.copy()
    predicted[0, 0, 5, 0] += 10  # 0.2 of the diagonal, 50
    assert tally_poses(predicted, target, LISA).metrics()["pck@0.2"] == 1
    predicted[0, 0, 5, 0] = target[0, 0, 5, 0] + 8  # 0.2 of the longer side, 40
    assert tally_poses(predicted, target, STRICT).metrics()["pck@0.2"] == pytest.approx(17 / 18)


def test_extra_people_cost_under_strict_only() -> None:
    target = people((10, 10))
    predicted = people((10, 10), (200, 100))
    found = {name: tally_poses(predicted, target, rules) for name, rules in POSE_PRESETS.items()}
    assert found["strict"].metrics()["pck@0.1"] == 0.5
    assert found["lisa"].metrics()["pck@0.2"] == found["mmpose"].metrics()["pck@0.2"] == 1
    assert all(tally.metrics()["extra_people"] == 1 for tally in found.values())


def test_an_absent_target_takes_nobody_from_a_present_one() -> None:
    """Nor does it hide that the second person found is one too many."""
    target = people((10, 10), (200, 100))
    target[0, 0] = 0
    predicted = people((201, 100))
    assert tally_poses(predicted, target, STRICT).metrics()["pck@0.1"] == 1
    both = tally_poses(people((10, 10), (200, 100)), target, STRICT)
    assert both.extra_people == 1


def test_means_over_joints_frames_or_all() -> None:
    target = people((10, 10), frames=2)
    target[1, 0, 2:] = 0  # the second frame has two joints
    predicted = target.copy()
    predicted[1, 0, 0, 0] -= 20
    by_preset = {
        name: tally_poses(predicted, target, rules).metrics()["pck@0.2"]
        for name, rules in POSE_PRESETS.items()
    }
    assert by_preset["strict"] == pytest.approx(19 / 20)
    assert by_preset["lisa"] == pytest.approx((1 + 1 / 2) / 2)
    assert by_preset["mmpose"] == pytest.approx((17 + 1 / 2) / 18)
    assert frame_pck(predicted, target, STRICT).tolist() == [1, 0.5]


def test_mmpose_keypoint_auc() -> None:
    """mmpose tests/test_evaluation/test_functional/test_keypoint_eval.py: distances 4, 8,
    10 sqrt 2 and 20 over 20 pixels in 4 steps."""
    distances = np.array([[4, 8, 1.4, 10 * np.sqrt(2), 20]])
    visible = np.array([[True, True, False, True, True]])
    assert keypoint_auc(distances, visible, 20, 4) == pytest.approx(0.375, abs=1e-6)
    target, predicted = people((100, 100)), people((100, 100))
    predicted[..., 0] += 12.0
    metrics = tally_poses(predicted, target, MMPOSE).metrics()
    assert metrics["auc"] == pytest.approx(11 / 20)  # thresholds 13.5, 15, ..., 28.5 pixels


def test_similarity_by_cocos_formula() -> None:
    distances = np.zeros((1, 18))
    distances[0, OPENPOSE_18.index("l_wrist")] = 5
    distances[0, OPENPOSE_18.index("neck")] = np.inf
    visible = np.ones((1, 18), bool)
    visible[0, OPENPOSE_18.index("nose")] = False
    wrist = np.exp(-25 / (2 * 900 * (2 * 0.062) ** 2))
    found = object_keypoint_similarity(distances, visible, np.array([900.0]))
    assert found[0] == pytest.approx((15 + wrist) / 17)
    assert np.isnan(object_keypoint_similarity(distances, visible, np.array([0.0]))[0])


def test_reference_lengths() -> None:
    points, visible = np.zeros((1, 1, 18, 2)), np.zeros((1, 1, 18), bool)
    for name, place in {
        "l_shoulder": (10, 0),
        "r_hip": (0, 40),
        "r_shoulder": (0, 0),
        "l_hip": (30, 40),
        "neck": (5, 0),
        "nose": (5, -12),
    }.items():
        points[0, 0, OPENPOSE_18.index(name)] = place
        visible[0, 0, OPENPOSE_18.index(name)] = True
    lengths = {
        name: float(reference_lengths(points, visible, name)[0, 0])
        for name in ("torso", "head", "max_side", "diagonal")
    }
    expected = {"torso": 50, "head": 12, "max_side": 52, "diagonal": np.hypot(30, 52)}
    assert lengths == pytest.approx(expected)
    visible[0, 0, OPENPOSE_18.index("l_hip")] = False
    assert reference_lengths(points, visible, "torso")[0, 0] == pytest.approx(np.hypot(10, 40))
    visible[0, 0, OPENPOSE_18.index("nose")] = False
    assert reference_lengths(points, visible, "head")[0, 0] == 0


def test_distances_l1_and_l2_of_joints_in_both() -> None:
    target = people((100, 100))
    predicted = target.copy()
    predicted[..., :2] += [3, 4]
    predicted[0, 0, 7] = 0
    metrics = tally_poses(predicted, target, STRICT).metrics()
    assert metrics["keypoint_distance_px"] == pytest.approx(5, rel=1e-5)
    assert metrics["keypoint_distance_l1_px"] == pytest.approx(3.5, rel=1e-5)
    assert metrics["keypoint_distance"] == pytest.approx(5 / 40, rel=1e-5)


def test_motion_of_joints() -> None:
    """x = t^3 against x = t^2: second differences 6t and 2, third difference 6."""
    time = np.arange(6.0)
    target, predicted = people((100, 100), frames=6), people((100, 100), frames=6)
    target[..., 0] += (time**2)[:, None, None]
    predicted[..., 0] += (time**3)[:, None, None]
    metrics = tally_poses(predicted, target, STRICT).metrics()
    assert metrics["acceleration_px"] == pytest.approx(np.mean(6 * time[1:5] - 2), rel=1e-4)
    assert metrics["jitter_px"] == pytest.approx(6, rel=1e-4)
    predicted[2] = 0  # a gap is no motion
    gap = tally_poses(predicted, target, STRICT)
    assert (gap.accelerations, gap.jerks) == (18, 0)
    assert np.isnan(gap.metrics()["jitter_px"])


def test_tallies_add_up() -> None:
    random = np.random.default_rng(1)
    target = people((10, 10), (100, 30), frames=8)
    predicted = target.copy()
    predicted[..., :2] += random.normal(0, 4, predicted[..., :2].shape)
    predicted[random.random(predicted.shape[:3]) < 0.2] = 0
    for rules in POSE_PRESETS.values():
        whole = tally_poses(predicted, target, rules).metrics()
        parts = [tally_poses(predicted[f], target[f], rules) for f in (slice(3), slice(3, 8))]
        added = (parts[0] + parts[1]).metrics()
        for name in whole.keys() - {"acceleration_px", "jitter_px"}:
            assert added[name] == pytest.approx(whole[name]), (rules.name, name)


def test_another_reference_length_is_named() -> None:
    assert pose_preset("lisa", "diagonal") is LISA
    by_head = pose_preset("strict", "head")
    assert (by_head.name, by_head.thresholds) == ("strict by head", STRICT.thresholds)
    target = people((100, 100))
    neck, nose = OPENPOSE_18.index("neck"), OPENPOSE_18.index("nose")
    target[0, 0, nose, :2] = target[0, 0, neck, :2] + [0, -20]
    predicted = target.copy()
    predicted[0, 0, 5, 0] += 4  # 0.2 of the head: not below it
    predicted[0, 0, 6, 0] += 3
    tally = tally_poses(predicted, target, by_head)
    assert tally.metrics()["pck@0.2"] == pytest.approx(17 / 18)
    assert tally.metrics()["keypoint_distance"] == pytest.approx(7 / 20 / 18)


def test_unknown_presets_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="'best', known: strict, lisa, mmpose"):
        pose_preset("best")
