"""What views show of clips."""

import numpy as np
import pytest

from lisa_video.poses import PoseSequence
from lisa_video.views import fit_frames, fit_poses
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
