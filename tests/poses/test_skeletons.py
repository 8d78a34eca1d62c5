"""Converters, checked joint by joint against lists written out by hand."""

import numpy as np

from lisa_video.poses.skeletons import COLOURS, LIMBS, OPENPOSE_18, from_blazepose33, from_coco17

# Place in the source of each OpenPose-18 joint; the neck, second, is made of both shoulders.
COCO_PLACES = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
BLAZEPOSE_PLACES = [0, None, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]


def numbered(count: int) -> np.ndarray:
    """(2, count, 3): joint i lies at (10 i, 10 i + 1) and is known with confidence 0.9."""
    index = np.arange(count, dtype=np.float32)
    joints = np.stack([10 * index, 10 * index + 1, np.full(count, 0.9, np.float32)], axis=-1)
    return np.stack([joints, joints])


def check_places(converted: np.ndarray, places: list[int | None]) -> None:
    assert converted.shape == (2, 18, 3) and converted.dtype == np.float32
    for joint, place in enumerate(places):
        if place is not None:
            assert converted[0, joint, 0] == 10 * place, OPENPOSE_18[joint]
            assert converted[0, joint, 1] == 10 * place + 1
    np.testing.assert_array_equal(converted[0], converted[1])


def test_coco_joints_go_to_their_openpose_places() -> None:
    converted = from_coco17(numbered(17))
    check_places(converted, COCO_PLACES)
    np.testing.assert_allclose(converted[0, 1], [55, 56, 0.9])


def test_blazepose_joints_go_to_their_openpose_places() -> None:
    converted = from_blazepose33(numbered(33))
    check_places(converted, BLAZEPOSE_PLACES)
    np.testing.assert_allclose(converted[0, 1], [115, 116, 0.9])


def test_neck_is_as_sure_as_the_less_sure_shoulder() -> None:
    keypoints = numbered(17)
    keypoints[0, 5, 2] = 0.2
    keypoints[1, 6, 2] = 0.0
    neck = from_coco17(keypoints)[:, 1]
    np.testing.assert_allclose(neck[0, 2], 0.2)
    assert neck[1, 2] == 0


def test_the_input_stays_as_it_is() -> None:
    keypoints = numbered(33)
    before = keypoints.copy()
    from_blazepose33(keypoints)
    np.testing.assert_array_equal(keypoints, before)


def test_limb_colours_are_openposes() -> None:
    names = [(OPENPOSE_18[start], OPENPOSE_18[end]) for start, end in LIMBS]
    by_limb = dict(zip(names, np.rint(COLOURS * 255).astype(int).tolist(), strict=False))
    assert by_limb["neck", "r_shoulder"] == [255, 0, 0]
    assert by_limb["neck", "l_shoulder"] == [255, 85, 0]
    assert by_limb["neck", "r_hip"] == [0, 255, 0]
    assert by_limb["neck", "nose"] == [0, 0, 255]
    assert by_limb["l_eye", "l_ear"] == [255, 0, 170]
