"""A driver becomes poses to follow: one person, smoothed, fitted; and what was done is told."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video.detectors import build_detector
from lisa_video.driver import (
    FittedDriver,
    check_driver,
    chosen_people,
    fit_driver,
    reference_poses,
    stream_poses,
)
from lisa_video.driver_config import BuildConfig, Person, RetargetConfig
from lisa_video.errors import UserError
from lisa_video.extraction_config import SmoothingConfig
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import OPENPOSE_18
from tests.extraction.figures import figure_frames

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "poses" / "marching.npz"
AS_IT_IS = SmoothingConfig(min_cutoff=0, max_gap=0)
SOURCE = Path("driver.npz")


def marching(**changes: object) -> PoseSequence:
    poses = PoseSequence.load(SAMPLE)
    return PoseSequence(**(vars(poses) | changes))


def two_people(second_size: float) -> PoseSequence:
    """The marching person, and a smaller one to the right; their columns change places halfway."""
    first = marching().keypoints
    second = first * np.array([second_size, second_size, 1], np.float32)
    second[..., 0] += 200 * (second[..., 2] > 0)
    both = np.concatenate([first, second], axis=1)
    both[8:] = both[8:, ::-1]
    return marching(keypoints=both, width=500)


def fitted(
    poses: PoseSequence,
    person: Person = "only",
    smoothing: SmoothingConfig = AS_IT_IS,
    **retargeting: object,
) -> FittedDriver:
    return fit_driver(poses, person, smoothing, RetargetConfig(**retargeting), "figures", SOURCE)


def test_a_driver_is_left_as_it_is_unless_asked() -> None:
    result = fitted(marching())
    np.testing.assert_array_equal(result.poses.keypoints, marching().keypoints)
    assert {record.mode for record in result.record.frames} == {"kept"}
    assert result.record.people == 1 and result.record.limbs is None


@pytest.mark.parametrize("number", [0, 1])
def test_people_are_chosen_by_prominence_and_followed(number: int) -> None:
    poses = two_people(0.8)
    chosen, count = chosen_people(poses, number, SOURCE)
    assert count == 2
    column = np.where(np.arange(16) < 8, number, 1 - number)
    np.testing.assert_array_equal(chosen.keypoints[:, 0], poses.keypoints[np.arange(16), column])
    everybody, count = chosen_people(poses, "all", SOURCE)
    assert everybody is poses and count == 2


def test_two_people_are_refused_with_the_way_out_but_not_passers_by() -> None:
    with pytest.raises(UserError, match=r"driver.npz: shows 2 people, .* driving.person=0.* to 1"):
        fitted(two_people(0.8))
    with pytest.raises(UserError, match=r"driving.person=2: driver.npz shows 2 people"):
        fitted(two_people(0.8), 2)
    with pytest.raises(UserError, match=r"driving.person=1: driver.npz shows 1 person"):
        fitted(marching(), 1)
    with pytest.raises(UserError, match=r"one person can be retargeted"):
        fitted(two_people(0.8), "all", build=BuildConfig(height=0.5))
    passing = two_people(0.8)
    passing.keypoints[3:, :, :, 2][passing.keypoints[3:, :, :, 0] > 250] = 0
    assert fitted(passing).record.people == 1


def test_filled_joints_are_told_frame_by_frame() -> None:
    poses = marching()
    wrist = OPENPOSE_18.index("r_wrist")
    poses.keypoints[4:6, 0, wrist] = 0
    record = fitted(poses, smoothing=SmoothingConfig(min_cutoff=0, max_gap=3)).record
    assert [index for index, frame in enumerate(record.frames) if frame.filled] == [4, 5]
    assert record.frames[4].filled == ("r_wrist",) and "r_wrist" not in record.frames[4].missing
    assert "r_wrist" in fitted(poses).record.frames[4].missing


def test_a_reference_of_any_kind_gives_limbs_and_picture(tmp_path: Path) -> None:
    frames = figure_frames(seed=1)
    picture, poses = tmp_path / "subject.png", tmp_path / "subject.npz"
    cv2.imwrite(str(picture), frames[3][..., ::-1])
    detector = build_detector("figures")
    stream_poses(frames, (64, 64), 8, detector).save(poses)
    by_file = fitted(marching(), reference=poses, frame=3)
    assert (by_file.poses.width, by_file.poses.height) == (64, 64)
    assert by_file.record.scale is not None and by_file.record.scale < 0.6
    by_picture = fitted(marching(), reference=picture)
    np.testing.assert_allclose(by_file.poses.keypoints, by_picture.poses.keypoints, atol=1e-3)
    assert set(json.loads(json.dumps(by_file.record.to_json()))) == {
        "people",
        "person",
        "scale",
        "limbs",
        "assumed",
        "frames",
    }
    assert by_file.record.summary().startswith("driver: 16 frames fitted limb by limb")


def test_streaming_finds_what_detecting_at_once_finds() -> None:
    frames = figure_frames(seed=2)
    detector = build_detector("figures")
    streamed = stream_poses(iter(frames), (64, 64), 8, detector)
    np.testing.assert_array_equal(streamed.keypoints, detector.detect(frames))
    assert (streamed.width, streamed.height, streamed.detector) == (64, 64, "figures")


def test_unusable_references_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / "a.mp4").write_text("no")
    cv2.imwrite(str(tmp_path / "a.png"), figure_frames(seed=1)[0])
    gone = marching()
    gone.keypoints[3] = 0
    gone.save(tmp_path / "gone.npz")
    two_people(0.8).save(tmp_path / "two.npz")
    for settings, message in [
        ({"reference": tmp_path / "none.npz"}, "none.npz: no such pose file"),
        ({"reference": SAMPLE, "frame": 16}, "frame=16: .*marching.npz has 16 frames"),
        ({"reference": tmp_path / "none.png"}, "none.png: no such file"),
        ({"reference": tmp_path / "a.txt"}, "a.txt: a reference is a pose file"),
        ({"reference": tmp_path / "a.mp4"}, "a.mp4: of a video say which frame"),
    ]:
        with pytest.raises(UserError, match=message):
            check_driver(RetargetConfig(**settings), "figures")
    with pytest.raises(UserError, match=r"gone\.npz: nobody is found in this reference"):
        reference_poses(RetargetConfig(reference=tmp_path / "gone.npz", frame=3), "figures")
    with pytest.raises(UserError, match=r"two\.npz: shows 2 people; a reference shows one"):
        reference_poses(RetargetConfig(reference=tmp_path / "two.npz"), "figures")
    with pytest.raises(UserError, match="unknown pose detector 'eyes'"):
        check_driver(RetargetConfig(reference=tmp_path / "a.png"), "eyes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": SAMPLE, "build": BuildConfig(legs=0.5)}, "either .*reference or .*build"),
        ({"frame": 2}, r"frame=2: a frame of driving\.retarget\.reference"),
        ({"max_change": 0.5}, "max_change=0.5"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RetargetConfig(**settings)
