"""What the web demo makes of the page's values, without a browser."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video.cli import parse_config
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.rendering.config import RenderConfig
from lisa_video.rendering.job import Progress
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.video import read_video, write_video
from lisa_video.web.checks import check_web
from lisa_video.web.config import BACKBONE_ALONE, WebConfig
from lisa_video.web.requests import ResultFolders, generated, plain_line, skeleton_preview
from tests.broken_videos import moving_frames
from tests.tiny import tiny_backbone
from tests.web.choices import CLIP, CONFIG, DRIVER, ROOT, SAMPLES, new


def test_a_sample_becomes_a_video_with_settings_that_make_it_again(tmp_path: Path) -> None:
    seen: list[Progress] = []
    choice = replace(CLIP, checkpoints=(BACKBONE_ALONE, "LISA"), score=True)
    result = generated(CONFIG, DRIVER, choice, tmp_path, seen.append)
    steps = [each for each in dict.fromkeys(seen) if each.phase == "clips"]
    assert [(each.label, each.done, each.total) for each in steps] == [
        (BACKBONE_ALONE, 1, 4),
        (BACKBONE_ALONE, 2, 4),
        ("LISA", 3, 4),
        ("LISA", 4, 4),
    ]
    video = read_video(result.video)
    assert video.frames.shape == (4, 2 * 22 + 256, 4 * 256 + 3 * 4, 3) and video.fps == 5
    assert "LISA: PCK@0.1" in result.text and result.cut == ""
    text = result.settings.read_text()
    assert str(tmp_path) not in text and "video: marching.mp4" in text
    settings = parse_config(RenderConfig, ["--config", str(result.settings)], "test")[0]
    assert settings.sampling.seed == 3 and settings.overlay == "figures"
    assert list(settings.side_networks) == [BACKBONE_ALONE, "LISA"]
    assert (settings.driving.start, settings.driving.fps) == (2, 5)


def test_poses_and_edges_act_together_where_there_is_a_video(tmp_path: Path) -> None:
    choice = replace(CLIP, checkpoints=("LISA", "both"))
    result = generated(CONFIG, DRIVER, choice, new(tmp_path / "video"), lambda _: None)
    panels = np.split(read_video(result.video).frames[:, 2 * 22 :, 2 * (256 + 4) :], [256], axis=2)
    apart = np.abs(panels[0].astype(int) - panels[1][:, :, 4:])
    assert apart.mean() > 3  # encoded, equal panels differ by 1
    message = "side_networks 'both': .*marching.npz: a side network is steered by edges"
    with pytest.raises(UserError, match=message):
        generated(CONFIG, replace(DRIVER, sample="poses"), choice, tmp_path, lambda _: None)


def test_what_of_a_prompt_is_not_read_is_told(tmp_path: Path) -> None:
    prompt = "a tall person " + "in a red shirt " * 40 + "at last"
    result = generated(CONFIG, DRIVER, replace(CLIP, prompt=prompt), tmp_path, lambda _: None)
    assert result.cut.endswith("at last")


def test_the_skeleton_is_shown_beside_the_driver(tmp_path: Path) -> None:
    path, driver = skeleton_preview(CONFIG, DRIVER, tmp_path)
    assert read_video(path).frames.shape == (4, 22 + 240, 240 + 4 + 240, 3)
    assert driver.record.people == 1
    (tmp_path / "poses").mkdir()
    path, _ = skeleton_preview(CONFIG, replace(DRIVER, sample="poses"), tmp_path / "poses")
    assert read_video(path).frames.shape == (4, 22 + 240, 240, 3)


@pytest.mark.parametrize(
    ("driver", "clip", "message"),
    [
        ({"sample": None}, {}, "no driver: upload a video or a pose file, or pick a sample"),
        ({"frames": 21}, {}, "21 frames: at most 20"),
        ({"frames": 0}, {}, "driving.frames=0: must be at least 1"),
        ({"start": 14, "fps": 0}, {}, "marching.mp4: has 16 frames, and 4 frames from"),
        ({}, {"checkpoints": ()}, "choose a checkpoint"),
        ({}, {"checkpoints": (BACKBONE_ALONE,)}, "choose a checkpoint"),
        ({}, {"checkpoints": ("../../etc",)}, "choose a checkpoint"),
        ({}, {"steps": 26}, "26 steps: at most 25"),
        ({}, {"prompt": "  "}, "prompts: give at least one, and none that is empty"),
        ({"frames": 20, "fps": 0, "sample": "poses"}, {}, "marching.npz: has 16 frames"),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, driver: dict, clip: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generated(
            CONFIG, replace(DRIVER, **driver), replace(CLIP, **clip), tmp_path, lambda _: None
        )
    assert not list(tmp_path.iterdir())


def test_drivers_with_nobody_or_two_people_are_refused(tmp_path: Path) -> None:
    poses = PoseSequence.load(SAMPLES["poses"])
    two = np.concatenate([poses.keypoints, poses.keypoints + np.float32([60, 0, 0])], axis=1)
    PoseSequence(two, 330, 256, fps=10).save(tmp_path / "two.npz")
    replace(poses, keypoints=poses.keypoints * 0).save(tmp_path / "nobody.npz")
    poses.keypoints[2:10] = 0
    poses.save(tmp_path / "gone.npz")
    for name, message in (
        ("two.npz", "two.npz: shows 2 people, and one is expected; choose one by"),
        ("nobody.npz", "nobody.npz: no person in any of its 16 frames"),
        ("gone.npz", "gone.npz: nobody in the frames chosen, see driving.start"),
    ):
        choice, folder = replace(DRIVER, upload=tmp_path / name, fps=0), new(tmp_path / name[:-4])
        with pytest.raises(UserError) as shown:
            skeleton_preview(CONFIG, choice, folder)
        with pytest.raises(UserError) as made:
            generated(CONFIG, choice, CLIP, folder, lambda _: None)
        for caught in (shown, made):
            line = plain_line(caught.value, choice.upload)
            assert line.startswith(message) and str(tmp_path) not in line
        assert not list(folder.iterdir())
    everybody = replace(DRIVER, upload=tmp_path / "two.npz", person="all")
    driver = skeleton_preview(CONFIG, everybody, new(tmp_path / "both"))[1]
    assert driver.poses.keypoints.shape[1] == 2


def test_a_driver_shorter_than_a_window_is_made_at_once(tmp_path: Path) -> None:
    made = [
        generated(
            CONFIG, DRIVER, replace(CLIP, window=window), new(tmp_path / name), lambda _: None
        )
        for name, window in (("windowed", 16), ("plain", 0))
    ]
    first, second = (read_video(result.video).frames for result in made)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("fps", "chosen", "frames"), [(30, 0, 4), (30, 15, 4), (7.5, 15, 8)])
def test_a_driver_of_any_rate_keeps_its_pace(
    tmp_path: Path, fps: float, chosen: float, frames: int
) -> None:
    frames_of_driver = moving_frames(count=8, size=(64, 64))
    write_video(tmp_path / "driver.mp4", frames_of_driver, fps)
    driver = replace(DRIVER, upload=tmp_path / "driver.mp4", start=0, fps=chosen, frames=frames)
    result = generated(CONFIG, driver, CLIP, new(tmp_path / "kept"), lambda _: None)
    video = read_video(result.video)
    assert (len(video.frames), video.fps) == (frames, pytest.approx(chosen or fps))
    panels = np.stack([cv2.resize(each, (256, 256)) for each in frames_of_driver]).astype(int)
    apart = [
        np.abs(panels - frame).mean(axis=(1, 2, 3)) for frame in video.frames[:, 2 * 22 :, :256]
    ]
    step = fps / (chosen or fps)
    assert np.argmin(apart, axis=1).tolist() == [round(index * step) for index in range(frames)]


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path: Path) -> None:
    side = UNetSideNetwork.from_backbone(tiny_backbone())
    side.save_pretrained(tmp_path / "other")
    model = replace(CONFIG.models["figures"], checkpoints={"mine": str(tmp_path / "other")})
    config = replace(CONFIG, models={"figures": model})
    with pytest.raises(UserError, match=r"models 'figures': .* was made for another backbone"):
        check_web(config)
    choice, folder = replace(CLIP, checkpoints=("mine",)), new(tmp_path / "kept")
    with pytest.raises(UserError, match=r"side_networks 'mine': .* was made for another backbone"):
        generated(config, DRIVER, choice, folder, lambda _: None)
    assert not list(folder.iterdir())


def test_only_the_newest_results_are_kept(tmp_path: Path) -> None:
    folders = ResultFolders(tmp_path, keep=2)
    kept = []
    for number in range(6):
        with suppress(ValueError), folders.new() as folder:
            kept.append(folder)
            (folder / "a").touch()
            if number % 2:
                raise ValueError
    assert [folder.exists() for folder in kept] == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("here", False)],
)
def test_addresses_that_others_can_reach_are_known(host: str, local: bool) -> None:
    config = replace(CONFIG, host=host)
    assert config.is_local == local
    assert config.warning is None if local else "there is no password" in str(config.warning)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": {"a": Path("gone.mp4")}}, "samples 'a': gone.mp4: no such file"),
        ({"detectors": ("eyes",)}, "unknown pose detector 'eyes'"),
        (
            {"models": {"m": replace(CONFIG.models["figures"], checkpoints={"a": "gone"})}},
            "models 'm': gone: ",
        ),
    ],
)
def test_a_page_that_could_not_serve_is_not_opened(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_web(replace(CONFIG, **changes))


def test_the_shipped_config_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = parse_config(WebConfig, ["--config", "configs/web.yaml"], "test")[0]
    check_web(config)
    assert config.host == "127.0.0.1" and config.is_local
