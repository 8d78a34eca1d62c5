"""Side networks with conditions of their own, from one driver."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video import detectors
from lisa_video.cli import parse_config
from lisa_video.conditions import draw_edges
from lisa_video.driving_conditions import driver_conditions, framed_picture
from lisa_video.driving_source import driving_poses
from lisa_video.errors import UserError
from lisa_video.generation import check_generation, generate
from lisa_video.generation_config import DrivingConfig, GenerateConfig
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import Window, framed, window_of
from lisa_video.rendering.config import RenderConfig
from lisa_video.rendering.job import check_render, render
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.video import read_video, write_video
from tests.tiny import awakened, tiny_backbone, tiny_checkpoint

WIDTH, HEIGHT, FRAMES = 48, 32, 5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    backbone = tiny_backbone()
    tiny_checkpoint(folder / "backbone", backbone)
    for seed, kind in enumerate(("pose", "edges", "hands")):
        network = UNetSideNetwork.from_backbone(backbone, condition=kind)
        awakened(network, seed).save_pretrained(folder / kind)
    return folder


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bright square moves to the right; the detector "square" finds the joints on its middle
    column."""

    class SquareDetector:
        name, skeleton = "square", "openpose18"

        def stream(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for frame in frames:
                rows, columns = np.nonzero(frame.min(axis=-1) > 128)
                people = np.ones((1, 18, 3), np.float32)
                people[0, :, 0] = columns.mean() + 0.5
                people[0, :, 1] = np.linspace(rows.min(), rows.max() + 1, 18)
                yield people

    builders: Mapping = {**detectors.DETECTORS, "square": lambda _weights: SquareDetector()}
    monkeypatch.setattr(detectors, "DETECTORS", builders)
    frames = np.zeros((2 * FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[8:24, 2 * index + 4 : 2 * index + 16] = 255
    path = tmp_path / "driver.mp4"
    write_video(path, frames, 10)
    return path


def config(
    models: Path, output: Path, networks: str | list[str], **changes: object
) -> GenerateConfig:
    """As from the command line."""
    folders = [str(models / name) for name in networks] if isinstance(networks, list) else networks
    values = {
        "backbone.path": models / "backbone",
        "side_network": json.dumps(folders) if isinstance(folders, list) else models / folders,
        "prompt": "a man",
        "output": output,
        "driving.detector": "square",
        "driving.frames": FRAMES,
        "driving.fps": 5,
        "sampling.steps": 2,
    } | {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return parse_config(GenerateConfig, arguments, "test")[0]


def test_a_picture_is_framed_as_its_poses_are() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[12:16, 20:28] = 255
    corners = np.zeros((1, 1, 18, 3), np.float32)
    corners[0, 0, :, 2] = 1
    corners[0, 0, :2, :2] = [(20, 12), (28, 16)]
    corners[0, 0, 2:, :2] = (24, 14)
    poses = PoseSequence(corners, WIDTH, HEIGHT, 10)
    for framing, size in (("stretch", (96, 32)), ("fit", (96, 96)), ("people", (64, 64))):
        seen = framed_picture(picture, window_of(poses, size, framing), size)
        assert seen.shape == (size[1], size[0], 3)
        rows, columns = np.nonzero(seen[..., 0] > 128)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        asked = framed(poses, size, framing).keypoints[0, 0, :2, :2].ravel()
        scale = size[0] / window_of(poses, size, framing).width
        np.testing.assert_allclose(found, asked, atol=scale)


def test_what_lies_beyond_the_picture_has_no_edges() -> None:
    picture = np.full((32, 32, 3), 200, np.uint8)
    seen = framed_picture(picture, Window(-16, -40, 64, 100), (64, 100))
    assert not draw_edges(seen[None]).any()
    cv2.circle(picture, (16, 16), 6, (0, 0, 0), -1)
    assert draw_edges(framed_picture(picture, Window(-16, -16, 64, 64), (64, 64))[None]).any()


def test_edges_are_those_of_the_frames_that_are_followed(driver: Path) -> None:
    driving = DrivingConfig(video=driver, detector="square", frames=FRAMES, fps=5)
    poses = driving_poses(driving)
    shown, edges = driver_conditions(driving, ["pose", "edges"], poses, (WIDTH, HEIGHT))
    assert isinstance(shown, PoseSequence)
    assert edges.shape == (1, FRAMES, 3, HEIGHT, WIDTH)
    video = read_video(driver).frames[::2]
    np.testing.assert_array_equal(edges[0].numpy(), draw_edges(video))
    assert edges.any()


def test_each_side_network_is_shown_what_it_was_trained_on(
    models: Path, driver: Path, tmp_path: Path
) -> None:
    def frames(name: str, networks: str | list[str], **changes: object) -> np.ndarray:
        changes = {"driving__video": driver, **changes}
        settings = config(models, tmp_path / f"{name}.mp4", networks, **changes)
        check_generation(settings)
        generate(settings)
        written = tmp_path / f"{name}.yaml"
        assert parse_config(GenerateConfig, ["--config", str(written)], "test")[0] == settings
        return read_video(settings.output).frames

    both = ["pose", "edges"]
    together = frames("together", both)
    poses, edges = frames("poses", "pose"), frames("edges", ["edges"])
    assert (poses != edges).any() and (together != poses).any() and (together != edges).any()
    np.testing.assert_array_equal(frames("first", both, control__weights="[1, 0]"), poses)
    np.testing.assert_array_equal(frames("second", both, control__weights="[0, 1]"), edges)
    by_frame = frames(
        "by frame", both, control__weights="[2, 0]", control__scale="[.5,.5,.5,.5,.5]"
    )
    np.testing.assert_array_equal(by_frame, poses)


def test_a_grid_shows_controls_apart_and_together(
    models: Path, driver: Path, tmp_path: Path
) -> None:
    labels = {
        "alone": None,
        "poses": str(models / "pose"),
        "both": [str(models / "pose"), str(models / "edges")],
    }
    values = {
        "backbone.path": models / "backbone",
        "side_networks": json.dumps(labels),
        "prompts": '["a man"]',
        "output": tmp_path / "grid.mp4",
        "driving.video": driver,
        "driving.detector": "square",
        "driving.frames": FRAMES,
        "sampling.steps": 2,
        "control.weights": "[0.5, 1.5]",
        "side": 32,
    }
    arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    settings = parse_config(RenderConfig, arguments, "test")[0]
    check_render(settings)
    render(settings)
    assert read_video(settings.output).frames.shape[2] == WIDTH + 4 * 32 + 4 * 4
    asked = [settings.generation(label, "a man") for label in labels]
    assert [each.control.weights for each in asked] == [None, None, [0.5, 1.5]]
    assert [each.control.scale for each in asked] == [0, 1, 1]
    with pytest.raises(UserError, match=r"control.weights=\[1.0\]: no checkpoint has 1 side"):
        parse_config(
            RenderConfig,
            [*arguments, "--control.weights", "[1]", "--side_networks", '{"a": ["b", "c"]}'],
            "test",
        )


@pytest.mark.parametrize(
    ("networks", "changes", "message"),
    [
        (
            "edges",
            {"poses": True},
            r"poses.npz: a side network is steered by edges, .* driving.video",
        ),
        ("edges", {"driving__retarget__build__height": 0.5}, "driving.retarget: moves poses"),
        (
            "hands",
            {"poses": True},
            "condition=hands: a skeleton of 18 keypoints has no such joints",
        ),
        (
            ["pose", "edges"],
            {"control__weights": "[1]"},
            r"control.weights=\[1.0\]: .* which are 2",
        ),
        ([], {}, "side_network: give at least one folder"),
        (["pose", "nowhere"], {}, "nowhere: no such folder"),
    ],
)
def test_what_the_driver_cannot_show_is_refused_before_work(
    models: Path,
    driver: Path,
    tmp_path: Path,
    networks: str | list[str],
    changes: dict,
    message: str,
) -> None:
    poses = tmp_path / "poses.npz"
    PoseSequence(np.ones((2 * FRAMES, 1, 18, 3), np.float32), 8, 8, 10).save(poses)
    changes = dict(changes)
    source = (
        {"driving__poses": poses} if changes.pop("poses", False) else {"driving__video": driver}
    )
    with pytest.raises(UserError, match=message) as caught:
        check_generation(config(models, tmp_path / "out.mp4", networks, **source, **changes))
    assert "\n" not in str(caught.value)
