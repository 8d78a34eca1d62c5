"""Clips in a mirror."""

import numpy as np
import pytest

from lisa_video.mirroring import can_mirror, mirrored_caption, mirrored_frames, mirrored_poses
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.poses.skeletons import COLOURS, OPENPOSE_18

SIZE = (40, 30)
JOINTS = {"openpose18": 18, "openpose18_hands": 60, "openpose18_hands_face": 128}


def random_poses(seed: int, skeleton: str = "openpose18") -> PoseSequence:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 1, (3, 2, JOINTS[skeleton], 3)).astype(np.float32)
    keypoints[..., :2] *= SIZE
    keypoints[rng.random(keypoints.shape[:3]) < 0.3] = 0
    return PoseSequence(keypoints, *SIZE, fps=8.0, skeleton=skeleton)


@pytest.mark.parametrize("skeleton", JOINTS)
def test_twice_mirrored_is_as_it_was(skeleton: str) -> None:
    poses = random_poses(0, skeleton)
    twice = mirrored_poses(mirrored_poses(poses))
    np.testing.assert_allclose(twice.keypoints, poses.keypoints, atol=1e-5)
    frames = np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3)).astype(np.uint8)
    np.testing.assert_array_equal(mirrored_frames(mirrored_frames(frames)), frames)


def test_a_mirrored_drawing_has_the_colours_of_the_other_side() -> None:
    """The drawing turned over, but for left limbs in right limbs' colours, and the reverse."""
    poses = random_poses(1)
    other = [
        OPENPOSE_18.index({"l": "r", "r": "l"}[name[0]] + name[1:]) if name[1] == "_" else index
        for index, name in enumerate(OPENPOSE_18)
    ]
    drawn = draw_pose_frames(mirrored_poses(poses).keypoints, SIZE, SIZE)
    renamed = draw_pose_frames(poses.keypoints[:, :, other], SIZE, SIZE)
    np.testing.assert_allclose(drawn, renamed[..., ::-1], atol=1e-5)


def test_the_right_wrist_becomes_a_left_wrist_on_the_other_side() -> None:
    keypoints = np.zeros((1, 1, 18, 3), np.float32)
    right, left = OPENPOSE_18.index("r_wrist"), OPENPOSE_18.index("l_wrist")
    keypoints[0, 0, right] = [4.5, 10.5, 1]
    mirrored = mirrored_poses(PoseSequence(keypoints, *SIZE, fps=8.0))
    assert (mirrored.keypoints[0, 0, left] == [35.5, 10.5, 1]).all()
    assert np.count_nonzero(mirrored.keypoints[..., 2]) == 1
    drawn = draw_pose_frames(mirrored.keypoints, SIZE, SIZE)
    np.testing.assert_allclose(drawn[0, :, 10, 35], COLOURS[left], atol=0.05)


def test_the_input_stays_as_it_is() -> None:
    poses = random_poses(2)
    before = poses.keypoints.copy()
    mirrored_poses(poses).keypoints[:] = 7
    np.testing.assert_array_equal(poses.keypoints, before)


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        ("a man walks to the left", "a man walks to the right"),
        ("Left of her, a dog; RIGHT hand up", "Right of her, a dog; LEFT hand up"),
        ("the leftmost right-handed player", "the rightmost left-handed player"),
        ("rightwards, then leftward", "leftwards, then rightward"),
        ("her left, her right", "her right, her left"),
        ("upright in bright light, a cleft rock", "upright in bright light, a cleft rock"),
        ("a woman dances", "a woman dances"),
        ("", ""),
    ],
)
def test_words_for_the_sides_are_exchanged(caption: str, mirrored: str) -> None:
    assert can_mirror(caption)
    assert mirrored_caption(caption) == mirrored
    assert mirrored_caption(mirrored) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "a man turns right away from the wall",
        "she has left the room",
        "All right, they dance",
        "a hat was left behind",
        "right in front of the door",
        "he turns clockwise",
        "she bends at a right angle",
    ],
)
def test_captions_that_a_mirror_would_make_wrong_are_known(caption: str) -> None:
    assert not can_mirror(caption)
