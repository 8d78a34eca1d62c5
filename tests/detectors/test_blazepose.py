"""BlazePose with its real weights on a real clip: a man who talks on a car's back seat."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lisa_video.assets import fetch_asset
from lisa_video.detectors import build_detector
from lisa_video.detectors.blazepose import BlazePoseDetector, Square, refine_points
from lisa_video.errors import UserError
from lisa_video.poses.skeletons import OPENPOSE_18

NOSE, NECK, R_SHOULDER, L_SHOULDER, R_EYE, L_EYE, R_HIP = (
    OPENPOSE_18.index(name)
    for name in ("nose", "neck", "r_shoulder", "l_shoulder", "r_eye", "l_eye", "r_hip")
)


@pytest.fixture(scope="module")
def carphone() -> np.ndarray:
    """uint8 (120, 144, 176, 3)."""
    with av.open(str(fetch_asset("clips") / "carphone_pristine.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def detector() -> BlazePoseDetector:
    return BlazePoseDetector(fetch_asset("blazepose"))


@pytest.fixture(scope="module")
def found(detector: BlazePoseDetector, carphone: np.ndarray) -> np.ndarray:
    """(120, 18, 3) of the whole clip."""
    return detector.detect(carphone)[:, 0]


def test_the_man_is_found_in_nearly_every_frame(found: np.ndarray) -> None:
    assert found.dtype == np.float32
    shoulders = found[:, [R_SHOULDER, L_SHOULDER], 2]
    assert (shoulders.min(axis=1) > 0.5).mean() >= 0.95


def test_the_joints_are_where_the_man_has_them(found: np.ndarray) -> None:
    """Places read off enlarged frames; he leans over, so that some change with time."""
    np.testing.assert_allclose(found[0, NOSE, :2], [91, 65], atol=5)
    np.testing.assert_allclose(found[0, R_SHOULDER, :2], [53, 127], atol=8)
    np.testing.assert_allclose(found[0, L_SHOULDER, :2], [143, 101], atol=8)
    assert (found[:, R_EYE, 0] < found[:, L_EYE, 0]).all()
    assert (found[:, R_EYE, 1] < found[:, NOSE, 1]).all()
    assert (found[:, NOSE, 1] < found[:, NECK, 1]).all()


def test_frame_by_frame_gives_the_same(
    detector: BlazePoseDetector, carphone: np.ndarray, found: np.ndarray
) -> None:
    streamed = list(detector.stream(iter(carphone[:8])))
    np.testing.assert_array_equal(np.stack(streamed)[:, 0], found[:8])


def test_what_is_out_of_the_picture_is_not_trusted(found: np.ndarray) -> None:
    assert found[:, R_HIP, 2].max() < 0.1


def test_a_shifted_picture_has_shifted_joints(
    detector: BlazePoseDetector, carphone: np.ndarray
) -> None:
    wide = np.pad(carphone[:3], ((0, 0), (20, 40), (60, 0), (0, 0)))
    here, there = detector.detect(carphone[:3])[:, 0], detector.detect(wide)[:, 0]
    # The face only: the black rim cuts his coat off where the picture's edge did not.
    face = [NOSE, R_EYE, L_EYE]
    difference = there[:, face, :2] - here[:, face, :2] - [60, 20]
    assert np.abs(difference).mean() < 2


def test_a_tilted_man_is_followed(detector: BlazePoseDetector, carphone: np.ndarray) -> None:
    """Turned on his side, found in a square that turns with him."""
    upright = np.pad(carphone[0], ((16, 16), (0, 0), (0, 0)))
    turned = cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE)
    nose = detector.detect(turned[None])[0, 0, NOSE]
    x, y = detector.detect(upright[None])[0, 0, NOSE, :2]
    assert nose[2] > 0.5
    np.testing.assert_allclose(nose[:2], [176 - y, x], atol=6)


def test_he_is_found_again_after_a_cut(detector: BlazePoseDetector, carphone: np.ndarray) -> None:
    frames = carphone[:6].copy()
    frames[2:4] = 127
    confidence = detector.detect(frames)[:, 0, NOSE, 2]
    assert (confidence[[0, 1, 4, 5]] > 0.5).all()
    assert (confidence[2:4] == 0).all()


def test_an_empty_picture_has_nobody(detector: BlazePoseDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    assert not detector.detect(noise).any()


def test_clips_do_not_depend_on_those_before(
    detector: BlazePoseDetector, carphone: np.ndarray
) -> None:
    first = detector.detect(carphone[:2])
    detector.detect(carphone[60:62])
    np.testing.assert_array_equal(detector.detect(carphone[:2]), first)


def test_a_square_cuts_what_lies_in_it() -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[10:20, 30:40] = 255
    patch = Square(35, 15, 10).cut(frame, 20, cv2.BORDER_CONSTANT)
    assert patch.shape == (20, 20, 3) and patch[1:-1, 1:-1].min() == 1
    outside = Square(35, 5, 10).cut(frame, 20, cv2.BORDER_CONSTANT)
    assert outside[:-1].max() == 0


def test_a_person_lying_to_the_right_turns_the_square_clockwise() -> None:
    square = Square.of_person(np.array([50.0, 50.0]), np.array([70.0, 50.0]))
    assert square.side == pytest.approx(50)
    assert square.angle == pytest.approx(np.pi / 2)
    # The middle of the square's upper edge is over the head, which points to the right.
    np.testing.assert_allclose(square.to_picture(np.array([0.5, 0.0])), [75, 50], atol=1e-5)


def test_landmarks_move_to_a_sure_peak_only() -> None:
    points = np.array([[0.5, 0.5], [0.5, 0.5], [1.5, 0.5]], np.float32)
    heatmaps = np.full((64, 64, 3), -20, np.float32)
    heatmaps[33, 34, 0] = 20
    heatmaps[33, 34, 1] = -1
    refined = refine_points(points, heatmaps)
    np.testing.assert_allclose(refined[0], [34 / 64, 33 / 64], atol=1e-5)
    np.testing.assert_array_equal(refined[1:], points[1:])


def test_folders_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pose_detection\.tflite: no such file"):
        build_detector("blazepose", weights=tmp_path)
    (tmp_path / "pose_detection.tflite").write_text("not a network")
    with pytest.raises(UserError, match=r"pose_detection\.tflite: not a TFLite network"):
        build_detector("blazepose", weights=tmp_path)


def test_unknown_detectors_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown pose detector 'x', known: figures, blazepose"):
        build_detector("x")
