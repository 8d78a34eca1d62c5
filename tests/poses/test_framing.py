"""Where a pose lands in the generated frame."""

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import PEOPLE_SHARE, framed, window_of


def sequence(places: list[tuple[float, float, float]], frames: int = 2) -> PoseSequence:
    """The first joints of one person at (x, y, confidence), in a picture of 200 x 100 pixels."""
    keypoints = np.zeros((frames, 1, 18, 3), dtype=np.float32)
    keypoints[:, 0, : len(places)] = np.reshape(places, (-1, 3))
    return PoseSequence(keypoints, width=200, height=100, fps=10)


def placed(poses: PoseSequence, count: int) -> list[list[float]]:
    return poses.keypoints[0, 0, :count, :2].round(3).tolist()


def test_fit_centres_the_whole_picture_and_keeps_proportions() -> None:
    poses = framed(sequence([(0.001, 0, 1), (200, 100, 1), (100, 50, 1)]), (64, 64), "fit")
    assert (poses.width, poses.height) == (64, 64)
    assert placed(poses, 3) == [[0, 16], [64, 48], [32, 32]]


def test_stretch_fills_the_frame() -> None:
    poses = framed(sequence([(50, 25, 1), (200, 100, 1)]), (40, 80), "stretch")
    assert placed(poses, 2) == [[10, 20], [40, 80]]


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 32)])
def test_people_fill_their_share_and_keep_proportions(size: tuple[int, int]) -> None:
    poses = framed(sequence([(20, 10, 1), (40, 90, 1)]), size, "people")
    low, high = (np.array(place) for place in placed(poses, 2))
    np.testing.assert_allclose((low + high) / 2, np.array(size) / 2, atol=1e-3)
    extent = high - low
    assert extent[0] / extent[1] == pytest.approx(20 / 80, abs=1e-4)
    assert (extent / np.array(size)).max() == pytest.approx(PEOPLE_SHARE, abs=1e-4)


def test_people_window_is_one_for_the_whole_clip() -> None:
    moving = sequence([(20, 10, 1), (40, 90, 1)])
    moving.keypoints[1, 0, :2, 0] += 60
    poses = framed(moving, (64, 64), "people")
    shift = poses.keypoints[1, 0, :2, 0] - poses.keypoints[0, 0, :2, 0]
    scale = 64 / window_of(moving, (64, 64), "people").width
    np.testing.assert_allclose(shift, 60 * scale, rtol=1e-5)


def test_unsure_joints_do_not_widen_the_window_and_absent_ones_stay_absent() -> None:
    sure = [(20.0, 10.0, 0.9), (40.0, 90.0, 0.8)]
    poses = sequence([*sure, (190.0, 95.0, 0.1)])
    assert window_of(poses, (64, 64), "people") == window_of(sequence(sure), (64, 64), "people")
    assert not framed(poses, (64, 64), "people").keypoints[:, :, 3:].any()
    assert framed(poses, (64, 64), "people").keypoints[0, 0, 2, 0] > 64


def test_unsure_joints_are_framed_where_there_are_no_others() -> None:
    window = window_of(sequence([(60, 50, 0.1)]), (64, 64), "people")
    assert window.left < 60 < window.left + window.width


def test_nobody_cannot_be_framed() -> None:
    with pytest.raises(UserError, match="the poses hold nobody; use 'fit'"):
        framed(sequence([]), (64, 64), "people")
    assert not framed(sequence([]), (64, 64), "fit").keypoints.any()
