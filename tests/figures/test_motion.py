import json
from pathlib import Path

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.figures.body import Build, body_points, openpose_points, point
from lisa_video.figures.motion import load_mocap, procedural_motion


def test_recordings_are_human(motion_folder: Path) -> None:
    recordings = load_mocap(motion_folder)
    assert len(recordings) == 15
    walk = recordings["walk"]
    points = body_points(walk.sample(np.arange(0, 1.5, 0.05)), Build("reference"))
    # Walking: upright, feet near the ground one after the other, and moving forward along +x.
    assert (point(points, "head")[:, 1] > 1.4).all()
    lowest = np.minimum(point(points, "right_ankle")[:, 1], point(points, "left_ankle")[:, 1])
    assert (lowest > -0.05).all() and (lowest < 0.2).all()
    assert point(points, "root")[-1, 0] - point(points, "root")[0, 0] > 0.8
    # Facing forward, the right shoulder is at positive z.
    assert (point(points, "right_shoulder")[:, 2] > point(points, "left_shoulder")[:, 2]).all()


def test_bone_lengths_stay_constant_whatever_the_motion(motion_folder: Path) -> None:
    sample = load_mocap(motion_folder)["cartwheel"].sample(np.linspace(0, 2, 30))
    build = Build("", arm=1.3)
    points = body_points(sample, build)
    forearm = np.linalg.norm(point(points, "right_wrist") - point(points, "right_elbow"), axis=-1)
    np.testing.assert_allclose(forearm, 0.258947 * 1.3, rtol=1e-9)


def test_sampling_at_recorded_instants_gives_the_recorded_pose(motion_folder: Path) -> None:
    content = json.loads((motion_folder / "humanoid3d_kick.txt").read_text())
    frame = np.array(content["Frames"][10])
    sample = load_mocap(motion_folder)["kick"].sample(np.array([10 * frame[0]]))
    np.testing.assert_allclose(sample.root[0], frame[1:4], atol=1e-6)
    knee = frame[20]  # duration, root position, four quaternions, then the right knee
    angle = np.arctan2(sample.rotations[0, 4, 1, 0], sample.rotations[0, 4, 0, 0])
    assert angle == pytest.approx(knee, abs=1e-6)


def test_a_looping_recording_carries_the_figure_on(motion_folder: Path) -> None:
    run = load_mocap(motion_folder)["run"]
    assert run.duration > 3
    x = run.sample(np.arange(0, 3, 0.1)).root[:, 0]
    assert (np.diff(x) > 0).all()


def test_openpose_order_and_neck() -> None:
    motion = procedural_motion(np.random.default_rng(3))
    points = body_points(motion.sample(np.array([0.0, 0.5])), Build(""))
    keypoints = openpose_points(points)
    assert keypoints.shape == (2, 18, 3)
    np.testing.assert_allclose(keypoints[:, 1], (keypoints[:, 2] + keypoints[:, 5]) / 2)
    np.testing.assert_allclose(keypoints[:, 10], point(points, "right_ankle"))


def test_missing_and_broken_motion_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no humanoid3d_"):
        load_mocap(tmp_path)
    (tmp_path / "humanoid3d_x.txt").write_text('{"Loop": "wrap", "Frames": [[1, 2, 3]]}')
    with pytest.raises(UserError, match=r"humanoid3d_x.txt.*\(T, 44\)"):
        load_mocap(tmp_path)
    (tmp_path / "humanoid3d_x.txt").write_text("not json")
    with pytest.raises(UserError, match="not a DeepMimic motion file"):
        load_mocap(tmp_path)
