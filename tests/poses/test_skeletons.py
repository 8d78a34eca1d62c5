"""Converters and mirrors, checked joint by joint against lists written out by hand."""

import numpy as np
import pytest

from lisa_video.poses.skeletons import (
    COLOURS,
    FACE,
    FACE_68,
    HAND_21,
    HAND_LIMBS,
    LEFT_HAND,
    LIMBS,
    OPENPOSE_18,
    RIGHT_HAND,
    SKELETONS,
    flip_order,
    from_blazepose33,
    from_coco17,
    from_coco_wholebody,
)

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


# Hands and face.


def test_wholebody_goes_to_body_hands_and_face() -> None:
    keypoints = numbered(133)
    converted = from_coco_wholebody(keypoints)
    assert converted.shape == (2, 128, 3) and converted.dtype == np.float32
    np.testing.assert_array_equal(converted[:, :18], from_coco17(keypoints[:, :17]))
    np.testing.assert_array_equal(converted[:, LEFT_HAND], keypoints[:, 91:112])
    np.testing.assert_array_equal(converted[:, RIGHT_HAND], keypoints[:, 112:133])
    np.testing.assert_array_equal(converted[:, FACE], keypoints[:, 23:91])


def test_parts_lie_where_the_skeletons_say() -> None:
    whole = SKELETONS["openpose18_hands_face"]
    assert [len(names) for names in SKELETONS.values()] == [18, 60, 128]
    assert SKELETONS["openpose18"] == whole[:18] and SKELETONS["openpose18_hands"] == whole[:60]
    assert whole[LEFT_HAND] == tuple(f"l_hand_{name}" for name in HAND_21)
    assert whole[RIGHT_HAND] == tuple(f"r_hand_{name}" for name in HAND_21)
    assert whole[FACE] == FACE_68
    assert len(set(whole)) == 128


def test_fingers_are_chains_from_the_root() -> None:
    chains = [HAND_LIMBS[4 * finger : 4 * finger + 4] for finger in range(5)]
    assert chains[0] == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert chains[4] == ((0, 17), (17, 18), (18, 19), (19, 20))
    assert HAND_21[1] == "thumb_1" and HAND_21[20] == "little_4"


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_flipping_twice_changes_nothing_and_swaps_sides(skeleton: str) -> None:
    names, order = SKELETONS[skeleton], flip_order(skeleton)
    assert sorted(order) == list(range(len(names)))
    assert [order[index] for index in order] == list(range(len(names)))
    for name, place in zip(names, order, strict=True):
        if name.startswith("l_"):
            assert names[place] == f"r_{name[2:]}"
        elif name in ("nose", "neck"):
            assert names[place] == name


def test_a_symmetric_face_stays_itself_when_mirrored() -> None:
    """x of each point of a schematic 300-W face, seen from the front, the middle at 0."""
    brow, eye = [-5.0, -4, -3, -2, -1], [-4.0, -3.5, -2.5, -2, -2.5, -3.5]
    eye_left = [2.0, 2.5, 3.5, 4, 3.5, 2.5]
    mouth = [-3.0, -2, -1, 0, 1, 2, 3, 2, 1, 0, -1, -2, -2.5, -1, 0, 1, 2.5, 1, 0, -1]
    nose = [0.0, 0, 0, 0, -2, -1, 0, 1, 2]
    x = np.array([*range(-8, 9), *brow, *(-v for v in brow[::-1]), *nose, *eye, *eye_left, *mouth])
    # A height of its own for each point on one side, equal to that of its twin.
    upper_eye = [0.0, 1, 1, 0, -1, -1]
    lips = [0.0, 1, 2, 3, 2, 1, 0, -1, -2, -3, -2, -1, 0, 0.5, 0.6, 0.5, 0, -0.5, -0.6, -0.5]
    sides = [*(abs(v) for v in range(-8, 9)), *range(5), *range(4, -1, -1), 1, 2, 3, 4, *[0] * 5]
    y = np.array([*sides, *upper_eye, *upper_eye, *lips])
    order = np.array(flip_order("openpose18_hands_face"))[FACE] - FACE.start
    np.testing.assert_array_equal(-x[order], x)
    np.testing.assert_array_equal(y[order], y)
