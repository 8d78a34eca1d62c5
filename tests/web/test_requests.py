"""What the web demo makes of the page's values, without a browser."""

import struct
import zipfile
import zlib
from contextlib import suppress
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
from lisa_video.rendering.job import Progress
from lisa_video.training.config import BackboneConfig
from lisa_video.video import read_video, write_video
from lisa_video.web.checks import check_web
from lisa_video.web.config import BACKBONE_ALONE, LimitsConfig, ModelConfig, WebConfig
from lisa_video.web.requests import (
    BodyChoice,
    ClipChoice,
    DriverChoice,
    ResultFolders,
    generated,
    plain_line,
    skeleton_preview,
)
from lisa_video.web.uploads import check_driver_file, check_reference_file
from tests.broken_videos import FAULTS, break_videos, moving_frames

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "data" / "embedded" / "animatediff"
SAMPLES = {
    "video": ROOT / "data" / "sample" / "videos" / "marching.mp4",
    "poses": ROOT / "data" / "sample" / "poses" / "marching.npz",
}
LIMITS = LimitsConfig(upload_mb=0.2, seconds=3, pixels=100 * 100, frames=20, steps=25)
CONFIG = WebConfig(
    models={
        "figures": ModelConfig(
            backbone=BackboneConfig(path=str(EMBEDDED / "backbone")),
            checkpoints={"LISA": str(EMBEDDED / "side_network")},
            scorer="figures",
        )
    },
    samples=SAMPLES,
    detectors=("figures",),
    limits=LIMITS,
)
DRIVER = DriverChoice(None, "video", "figures", "fit", "only", 2, 4, 5)
CLIP = ClipChoice("figures", ("LISA",), "a person", "", 3, 2, 2.0, 1.0, 0, False)


def new(folder: Path) -> Path:
    """A new folder for a result."""
    folder.mkdir(parents=True)
    return folder


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


def test_broken_uploads_are_refused_with_the_reason_and_no_path(tmp_path: Path) -> None:
    """All but those whose damage shows only when all frames are decoded."""
    faults = [fault for fault in FAULTS if fault.name not in ("hole", "folder", "link")]
    for path in break_videos(tmp_path, faults):
        choice = replace(DRIVER, upload=path)
        with pytest.raises(UserError) as caught:
            skeleton_preview(CONFIG, choice, tmp_path)
        line = plain_line(caught.value, path)
        assert str(tmp_path) not in line and line.startswith(f"{path.name}: "), line


def test_limits_of_uploads(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", moving_frames(count=40), 10)
    write_video(tmp_path / "wide.mp4", moving_frames(count=2, size=(160, 80)), 10)
    (tmp_path / "large.mp4").write_bytes(bytes(210_000))
    (tmp_path / "a.exe").write_bytes(b"MZ")
    poses = PoseSequence.load(SAMPLES["poses"])
    poses.frames([0] * 31).save(tmp_path / "long.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("keypoints.npy", bytes(70 * 2**20))
    PoseSequence(poses.keypoints, 10**6, 1, fps=10).save(tmp_path / "broad.npz")
    (tmp_path / "text.npz").write_text("no")
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32))
    with (
        zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive,
        archive.open("keypoints.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header | {"shape": (2**50,)})
    for name, message in {
        "long.mp4": "long.mp4: lasts 4.0 s, and at most 3 s",
        "wide.mp4": "wide.mp4: 160x80 pixels are too many",
        "large.mp4": "large.mp4: larger than 0.2 MB",
        "a.exe": "a.exe: not a driver",
        "long.npz": "long.npz: lasts 3.1 s",
        "bomb.npz": "bomb.npz: unpacks to 70 MiB",
        "broad.npz": "broad.npz: 1000000x1 pixels",
        "text.npz": "text.npz: not a pose file",
        "liar.npz": "liar.npz: not a pose file",
    }.items():
        with pytest.raises(UserError, match=message):
            check_driver_file(tmp_path / name, LIMITS)
        if name != "a.exe":
            with pytest.raises(UserError, match=message):
                check_reference_file(tmp_path / name, LIMITS)


def test_a_picture_is_measured_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
    (tmp_path / "text.jpg").write_text("no")
    (tmp_path / "video.png").write_bytes(SAMPLES["video"].read_bytes())
    cv2.imwrite(str(tmp_path / "wide.webp"), np.zeros((8, 90, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "large.bmp"), np.zeros((300, 300, 3), np.uint8))
    for name, message in {
        "bomb.png": "bomb.png: (60000x60000 pixels are too many|cannot be read as an image)",
        "text.jpg": "text.jpg: cannot be read as an image",
        "video.png": "video.png: cannot be read as an image",
        "wide.webp": "wide.webp: 90x8 pixels; one side may be 8 times",
        "large.bmp": "large.bmp: larger than 0.2 MB",
    }.items():
        with pytest.raises(UserError, match=message):
            check_reference_file(tmp_path / name, LIMITS)


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
