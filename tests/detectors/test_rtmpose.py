"""What rtmlib gives, as this package keeps it. Its networks cannot be had without a download, so
that they are not run here."""

import importlib.util

import numpy as np
import pytest

from lisa_video.detectors import build_detector
from lisa_video.detectors.base import pad_people
from lisa_video.detectors.rtmpose import people_found
from lisa_video.errors import UserError
from lisa_video.poses.skeletons import COCO_17, FACE, LEFT_HAND, OPENPOSE_18, RIGHT_HAND

NECK = OPENPOSE_18.index("neck")


def rtmlib_output(people: int, keypoints: int = 133) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    points = random.uniform(10, 90, (people, keypoints, 2))
    return points, random.uniform(0.4, 1, (people, keypoints))


@pytest.mark.parametrize("keypoints", [17, 133])
def test_the_body_is_kept_with_a_neck_between_the_shoulders(keypoints: int) -> None:
    points, scores = rtmlib_output(2, keypoints)
    found = people_found(points, scores)
    assert found.shape == (2, 18 if keypoints == 17 else 128, 3) and found.dtype == np.float32
    wrist = OPENPOSE_18.index("l_wrist"), COCO_17.index("l_wrist")
    np.testing.assert_allclose(found[:, wrist[0], :2], points[:, wrist[1]] + 0.5, rtol=1e-6)
    shoulders = [COCO_17.index(name) for name in ("l_shoulder", "r_shoulder")]
    np.testing.assert_allclose(found[:, NECK, :2], points[:, shoulders].mean(1) + 0.5, rtol=1e-6)


def test_hands_and_face_are_those_of_the_whole_body() -> None:
    points, scores = rtmlib_output(1)
    (found,) = people_found(points, scores)
    for part, place in ((FACE, slice(23, 91)), (LEFT_HAND, slice(91, 112))):
        np.testing.assert_allclose(found[part, :2], points[0, place] + 0.5, rtol=1e-6)
    np.testing.assert_allclose(found[RIGHT_HAND, 2], scores[0, 112:], rtol=1e-6)
    scores[0, 91:112] = 0.2
    (found,) = people_found(points, scores)
    assert not found[LEFT_HAND].any() and found[RIGHT_HAND].all()
    scores[0, :17] = 0.2  # a face and a hand alone are nobody
    assert not len(people_found(points, scores))


def test_unsure_joints_and_people_are_absent() -> None:
    points, scores = rtmlib_output(2)
    scores[0, COCO_17.index("l_shoulder")] = 0.29
    scores[1] = 0.1  # what rtmlib gives where it finds nobody
    scores[0, 0] = 1.4  # its scores can pass 1
    (found,) = people_found(points, scores)
    for name in ("l_shoulder", "neck"):
        assert (found[OPENPOSE_18.index(name)] == 0).all(), name
    assert found[..., 2].max() == 1


def test_frames_with_more_and_fewer_people() -> None:
    people = people_found(*rtmlib_output(3))
    padded = pad_people([people[:1], people, people[:0]], joints=128)
    assert padded.shape == (3, 3, 128, 3)
    np.testing.assert_array_equal(padded[1], people)
    assert not padded[0, 1:].any() and not padded[2].any()
    assert pad_people([people[:0]], joints=128).shape == (1, 0, 128, 3)


@pytest.mark.skipif(
    importlib.util.find_spec("rtmlib") is not None, reason="rtmlib is installed here"
)
@pytest.mark.parametrize("name", ["rtmpose", "dwpose"])
def test_without_rtmlib_the_error_says_how_to_get_it(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' needs rtmlib: pip install"):
        build_detector(name)
