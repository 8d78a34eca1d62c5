"""A driver on the page that takes the body of a reference or a build."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video.cli import parse_config
from lisa_video.driver_config import RetargetConfig
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.rendering.config import RenderConfig
from lisa_video.video import read_video, write_video
from lisa_video.web.requests import BodyChoice, generated, plain_line, skeleton_preview
from tests.broken_videos import moving_frames
from tests.web.choices import CLIP, CONFIG, DRIVER, LIMITS, SAMPLES, new


def other_body(path: Path) -> Path:
    """A pose file of somebody half as tall, at another place of a larger picture."""
    poses = PoseSequence.load(SAMPLES["poses"])
    keypoints = poses.keypoints * np.float32([0.5, 0.5, 1]) + np.float32([20, 10, 0])
    PoseSequence(keypoints * (poses.keypoints[..., 2:] > 0), 160, 150, fps=10).save(path)
    return path


def height_of(poses: PoseSequence) -> float:
    """Mean extent of the joints seen, in pixels."""
    rows = np.where(poses.body[..., 2] > 0, poses.body[..., 1], np.nan)
    return float((np.nanmax(rows, axis=-1) - np.nanmin(rows, axis=-1)).mean())


def test_a_driver_takes_the_body_of_a_reference_or_a_build(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    roomy = replace(CONFIG, limits=replace(LIMITS, pixels=256 * 256))
    driver = replace(DRIVER, sample="poses")
    own = skeleton_preview(CONFIG, driver, new(folder / "own"))[1]
    video = tmp_path / "still.mp4"
    write_video(video, read_video(SAMPLES["video"]).frames[:2], 10)
    picture = tmp_path / "still.png"
    cv2.imwrite(str(picture), read_video(SAMPLES["video"]).frames[0][..., ::-1])
    for name, body, share, size in (
        ("poses", BodyChoice(other_body(tmp_path / "other.npz")), 0.5, (160, 150)),
        ("picture", BodyChoice(picture), 1, (256, 256)),
        ("video", BodyChoice(video, frame=1), 1, (256, 256)),
        ("build", BodyChoice(height=0.25), None, (256, 256)),
    ):
        choice = replace(driver, body=body)
        path, fitted = skeleton_preview(roomy, choice, new(folder / name))
        assert fitted.record.summary().startswith("driver: 4 frames fitted limb by limb"), name
        assert (fitted.poses.width, fitted.poses.height) == size
        if share is not None:
            assert height_of(fitted.poses) == pytest.approx(share * height_of(own.poses), rel=0.1)
        else:
            assert height_of(fitted.poses) < 0.5 * height_of(own.poses)
        assert read_video(path).frames.shape[:2] == (4, 22 + 240)


def test_a_retargeted_result_tells_so_and_keeps_settings_for_elsewhere(tmp_path: Path) -> None:
    body = BodyChoice(other_body(tmp_path / "other.npz"), frame=99)
    choice = replace(DRIVER, body=body)
    result = generated(CONFIG, choice, CLIP, new(tmp_path / "kept"), lambda _: None)
    assert result.text.startswith("driver: 4 frames fitted limb by limb")
    text = result.settings.read_text()
    assert str(tmp_path) not in text and "reference: other.npz" in text
    settings = parse_config(RenderConfig, ["--config", str(result.settings)], "test")[0]
    assert settings.driving.retarget == RetargetConfig(Path("other.npz"))


def test_bodies_that_cannot_be_taken_are_refused_without_paths(tmp_path: Path) -> None:
    poses = PoseSequence.load(SAMPLES["poses"])
    two = np.concatenate([poses.keypoints, poses.keypoints + np.float32([60, 0, 0])], axis=1)
    PoseSequence(two, 330, 256, fps=10).save(tmp_path / "two.npz")
    replace(poses, keypoints=poses.keypoints * 0).save(tmp_path / "gone.npz")
    (tmp_path / "text.png").write_text("no")
    (tmp_path / "notes.txt").write_text("no")
    write_video(tmp_path / "two.mp4", moving_frames(count=2), 10)
    for body, message in (
        (BodyChoice(tmp_path / "two.npz"), "two.npz: shows 2 people; a reference shows one"),
        (BodyChoice(tmp_path / "gone.npz"), "gone.npz: no person in any of its 16 frames"),
        (BodyChoice(tmp_path / "text.png"), "text.png: cannot be read as an image"),
        (BodyChoice(tmp_path / "notes.txt"), "notes.txt: not a reference; give a picture, "),
        (BodyChoice(tmp_path / "two.mp4", frame=2), "two.mp4: has no frame 2"),
        (BodyChoice(other_body(tmp_path / "a.npz"), legs=0.5), "give either a reference or a b"),
        (BodyChoice(frame=1, legs=0), "driving.retarget.build.legs=0: must be above 0"),
        (BodyChoice(legs=0.6, torso=0.4), "driving.retarget.build: head, torso and legs add up"),
    ):
        choice, folder = replace(DRIVER, body=body), tmp_path / "never"
        with pytest.raises(UserError) as shown:
            skeleton_preview(CONFIG, choice, folder)
        with pytest.raises(UserError) as made:
            generated(CONFIG, choice, CLIP, folder, lambda _: None)
        for caught in (shown, made):
            line = plain_line(caught.value, body.reference)
            assert line.startswith(message) and str(tmp_path) not in line
        assert not folder.exists() or not list(folder.iterdir())
