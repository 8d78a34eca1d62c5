"""Pose sequences: what they compute, and which files they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import SKELETONS


def random_poses(frames: int = 4, people: int = 2) -> PoseSequence:
    keypoints = np.random.default_rng(0).random((frames, people, 18, 3)).astype(np.float32)
    return PoseSequence(keypoints, 64, 48, fps=12.5, detector="ground-truth")


def write(path: Path, **changes: Any) -> Path:
    """A pose file of random poses with some fields changed, or left out where None."""
    poses = random_poses()
    values: dict[str, Any] = {
        "version": 1,
        "keypoints": poses.keypoints,
        "width": 64,
        "height": 48,
        "fps": 12.5,
        "skeleton": "openpose18",
        "detector": "test",
    }
    np.savez(path, **{k: v for k, v in (values | changes).items() if v is not None})
    return path


def test_saved_poses_load_bit_for_bit(tmp_path: Path) -> None:
    poses = random_poses()
    poses.save(tmp_path / "a.npz")
    loaded = PoseSequence.load(tmp_path / "a.npz", require_people=True)
    np.testing.assert_array_equal(loaded.keypoints, poses.keypoints)
    assert loaded.keypoints.dtype == np.float32
    assert (loaded.width, loaded.height, loaded.fps) == (64, 48, 12.5)
    assert (loaded.skeleton, loaded.detector) == ("openpose18", "ground-truth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("skeleton", "joints"), [(name, len(SKELETONS[name])) for name in SKELETONS]
)
def test_every_skeleton_is_stored_with_its_body_first(
    tmp_path: Path, skeleton: str, joints: int
) -> None:
    keypoints = np.random.default_rng(0).random((3, 2, joints, 3)).astype(np.float32)
    poses = PoseSequence(keypoints, 64, 48, fps=5, skeleton=skeleton)
    poses.save(tmp_path / "a.npz")
    loaded = PoseSequence.load(tmp_path / "a.npz")
    assert loaded.skeleton == skeleton
    np.testing.assert_array_equal(loaded.keypoints, keypoints)
    np.testing.assert_array_equal(loaded.body, keypoints[:, :, :18])
    # Hands and face, which are often hidden, do not make a frame less trusted.
    body_only = PoseSequence(keypoints[:, :, :18], 64, 48, fps=5)
    np.testing.assert_array_equal(loaded.frame_weights(), body_only.frame_weights())


def test_saving_over_a_file_must_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    random_poses().save(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.npz: exists already"):
        random_poses(frames=2).save(path)
    assert path.read_bytes() == before
    random_poses(frames=2).save(path, overwrite=True)
    assert len(PoseSequence.load(path)) == 2


def test_saving_into_no_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        random_poses().save(tmp_path / "none" / "a.npz")
    assert not list(tmp_path.iterdir())


def test_resizing_scales_places_and_keeps_confidence() -> None:
    poses = random_poses()
    wide = poses.resized(128, 24)
    np.testing.assert_allclose(wide.keypoints, poses.keypoints * [2, 0.5, 1], rtol=1e-6)
    assert (wide.width, wide.height, wide.fps) == (128, 24, 12.5)


def test_frames_are_picked_in_the_order_asked_for() -> None:
    poses = random_poses()
    picked = poses.frames([3, 0, 0])
    np.testing.assert_array_equal(picked.keypoints, poses.keypoints[[3, 0, 0]])


def test_frame_weight_is_the_mean_confidence_of_the_surest_person() -> None:
    keypoints = np.zeros((3, 2, 18, 3), np.float32)
    keypoints[0, 0, :, 2] = 0.25
    keypoints[0, 1, :9, 2] = 1
    keypoints[1, 0, :, 2] = 0.75
    weights = PoseSequence(keypoints, 8, 8, fps=1).frame_weights()
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [0.5, 0.75, 0])


def test_frames_without_any_person_weigh_nothing() -> None:
    poses = PoseSequence(np.zeros((3, 0, 18, 3), np.float32), 8, 8, fps=1)
    np.testing.assert_array_equal(poses.frame_weights(), [0, 0, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_file_and_frame(
    tmp_path: Path, value: float
) -> None:
    keypoints = random_poses().keypoints
    keypoints[2:, 1, 5, 0] = value
    path = write(tmp_path / "a.npz", keypoints=keypoints)
    with pytest.raises(UserError, match=r"a\.npz: frame 2 .*NaN or infinite.*1 more") as caught:
        PoseSequence.load(path)
    assert "\n" not in str(caught.value)


def test_confidence_above_one_is_refused_with_file_and_frame(tmp_path: Path) -> None:
    keypoints = random_poses().keypoints
    keypoints[3, 0, 0, 2] = 1.5
    with pytest.raises(UserError, match=r"a\.npz: frame 3 .*outside \[0, 1\]"):
        PoseSequence.load(write(tmp_path / "a.npz", keypoints=keypoints))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": np.zeros((4, 1, 17, 3), np.float32)}, r"float32 \(4, 1, 17, 3\)"),
        ({"keypoints": np.zeros((4, 18, 3), np.float32)}, r"\(4, 18, 3\), not"),
        ({"keypoints": np.zeros((0, 1, 18, 3), np.float32)}, r"float32 \(0, 1, 18, 3\)"),
        ({"keypoints": np.zeros((4, 1, 18, 3), np.int64)}, "int64"),
        ({"version": 2}, "version 2, this lisa_video reads 1"),
        ({"version": None}, "no 'version'"),
        ({"fps": None}, "without 'fps'"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"fps": "often"}, "must be single numbers"),
        ({"width": 0}, "0x48 pixels"),
        ({"skeleton": "coco17"}, "unknown skeleton 'coco17', known: openpose18, openpose18_hands"),
        ({"skeleton": "openpose18_hands"}, r"\(4, 2, 18, 3\), not float \(frames, people, 60, 3\)"),
        ({"detector": np.array(["a"], dtype=object)}, "not a pose file"),
    ],
)
def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"a\.npz: .*{message}") as caught:
        PoseSequence.load(write(tmp_path / "a.npz", **changes))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.npz: no such pose file"):
        PoseSequence.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match=r"text\.npz: not a pose file"):
        PoseSequence.load(tmp_path / "text.npz")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"bare\.npy: not a pose file"):
        PoseSequence.load(tmp_path / "bare.npy")


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="not a pose file"):
        PoseSequence.load(path)


def test_a_video_without_people_is_refused_on_request_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", keypoints=np.zeros((4, 1, 18, 3), np.float32))
    assert len(PoseSequence.load(path)) == 4
    with pytest.raises(UserError, match=r"a\.npz: no person in any of its 4 frames"):
        PoseSequence.load(path, require_people=True)


def test_double_precision_files_are_read_as_single(tmp_path: Path) -> None:
    keypoints = random_poses().keypoints
    path = write(tmp_path / "a.npz", keypoints=keypoints.astype(np.float64))
    np.testing.assert_array_equal(PoseSequence.load(path).keypoints, keypoints)
