"""Rendering with real models, files and command line: what is shown, heard, kept and refused."""

import json
import runpy
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lisa_video import detectors
from lisa_video.cli import parse_config
from lisa_video.errors import UserError
from lisa_video.generation import generate_frames, load_pipeline
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import framed
from lisa_video.rendering.config import RenderConfig
from lisa_video.rendering.job import Progress, check_render, render
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.video import read_video
from tests.tiny import awakened, tiny_backbone, tiny_checkpoint
from tests.videos import tones, write_sounding_video

ROOT = Path(__file__).parents[2]
SIDE, BAR, GAP = 32, 22, 4
LABELS = {"alone": None, "first": "first", "second": "second"}
LABEL_OF_STEP = dict(enumerate(np.repeat(list(LABELS), 4).tolist(), 1))  # two prompts, two steps


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    backbone = tiny_backbone()
    tiny_checkpoint(folder / "backbone", backbone)
    for seed, name in enumerate(("first", "second")):
        awakened(UNetSideNetwork.from_backbone(backbone), seed).save_pretrained(folder / name)
    tiny_checkpoint(folder / "other", tiny_backbone(seed=1))
    return folder


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seconds at 10 fps in which a bright square moves, with a tone in the second one; the
    detector "square" finds every joint around it."""

    class SquareDetector:
        name, skeleton = "square", "openpose18"

        def stream(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for frame in frames:
                rows, columns = np.nonzero(frame.min(axis=-1) > 128)
                people = np.zeros((int(len(rows) > 0), 18, 3), np.float32)
                if len(rows):
                    people[0] = (columns.mean(), rows.mean(), 1)
                    people[0, :, 1] += np.arange(18) - 9
                yield people

    builders: Mapping = {**detectors.DETECTORS, "square": lambda _weights: SquareDetector()}
    monkeypatch.setattr(detectors, "DETECTORS", builders)
    frames = np.zeros((20, 32, 48, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[8:24, 2 * index : 2 * index + 8] = 255
    return write_sounding_video(tmp_path / "driver.mp4", frames, 10, [(1, 2)])


def config(models: Path, output: Path, **changes: object) -> RenderConfig:
    """As from the command line."""
    labels = {label: name and str(models / name) for label, name in LABELS.items()}
    values = {
        "backbone.path": models / "backbone",
        "side_networks": json.dumps(labels),
        "prompts": '["a man", "two"]',
        "output": output,
        "driving.frames": 4,
        "sampling.steps": 2,
        "side": SIDE,
    } | {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return parse_config(RenderConfig, arguments, "test")[0]


def sample_poses(path: Path, frames: int = 20, fps: float = 10) -> Path:
    keypoints = np.random.default_rng(0).uniform(4, 28, (frames, 1, 18, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    PoseSequence(keypoints, width=48, height=32, fps=fps).save(path)
    return path


def test_everything_stands_side_by_side_with_the_drivers_sound(
    models: Path, driver: Path, tmp_path: Path
) -> None:
    settings = config(
        models,
        tmp_path / "new" / "grid.mp4",
        driving__video=driver,
        driving__detector="square",
        driving__start=8,
        driving__fps=5,
        sheet=tmp_path / "new" / "sheet.png",
        overlay="square",
    )
    check_render(settings)
    assert not settings.output.parent.exists()
    seen: list[Progress] = []
    rendered = render(settings, seen.append)
    phases = {"poses": 4, "clips": 12, "grid": 4}
    assert list(dict.fromkeys(seen)) == [
        Progress(phase, LABEL_OF_STEP[done] if phase == "clips" else "", done, total)
        for phase, total in phases.items()
        for done in range(1, total + 1)
    ]

    video = read_video(settings.output)
    width = 48 + 4 * 32 + 4 * GAP
    assert video.frames.shape == (4, 2 * (2 * BAR + SIDE), width, 3)
    assert video.fps == 5
    # Frames 8, 10, 12 and 14 of the driver are shown, in each row.
    source = read_video(driver).frames[8:15:2].astype(int)
    for top in (2 * BAR, 2 * (2 * BAR) + SIDE):
        shown = video.frames[:, top : top + SIDE, :48].astype(int)
        assert np.abs(shown - source).mean() < 6
    # From 0.8 s to 1.6 s of the driver: the tone begins after 0.2 s.
    loud = tones(settings.output) > 0.05
    assert np.flatnonzero(loud)[0] / 100 == pytest.approx(0.2, abs=0.03)
    assert len(loud) / 100 == pytest.approx(0.8, abs=0.03)

    figures = json.loads(settings.output.with_suffix(".json").read_text())
    assert [clip["checkpoint"] for clip in figures["clips"]] == [
        label for label in LABELS for _ in range(2)
    ]
    assert len(figures["clips"][0]["per_frame"]) == 4
    assert len(figures["driver"]["frames"]) == 4 == len(rendered.poses)
    with Image.open(settings.sheet) as sheet:
        assert sheet.height == 8 * (BAR + 96)
    stored = settings.output.with_suffix(".yaml")
    assert parse_config(RenderConfig, ["--config", str(stored)], "test")[0] == settings
    names = {path.name for path in settings.output.parent.iterdir()}
    assert names == {"grid.mp4", "grid.yaml", "grid.json", "sheet.png"}


@pytest.mark.parametrize("phase", ["poses", "clips", "grid"])
def test_what_a_watcher_raises_ends_the_work_and_leaves_nothing(
    models: Path, driver: Path, tmp_path: Path, phase: str
) -> None:
    class EnoughError(Exception):
        pass

    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if (progress.phase, progress.done) == (phase, 2):
            raise EnoughError

    output = tmp_path / "new" / "grid.mp4"
    settings = config(models, output, driving__video=driver, driving__detector="square")
    with pytest.raises(EnoughError):
        render(settings, watch)
    assert (seen[-1].phase, seen[-1].done) == (phase, 2)
    assert not list(output.parent.iterdir())


def test_panels_are_the_clips_of_the_generation_job(models: Path, tmp_path: Path) -> None:
    poses = sample_poses(tmp_path / "poses.npz")
    settings = config(models, tmp_path / "grid.gif", driving__poses=poses, side=32)
    rendered = render(settings)
    grid = read_video(settings.output).frames.astype(int)
    assert grid.shape[2] == 4 * 32 + 3 * GAP, "no panel for a driver without a video"
    clips, panels = [], []
    for place, label in enumerate(LABELS):
        alone = settings.generation(label, "two")
        clips.append(np.stack([*generate_frames(load_pipeline(alone), alone, rendered.poses)]))
        left = (place + 1) * (32 + GAP)
        panels.append(grid[:, -SIDE:, left : left + 32])
    # GIF has 256 colours, and the way to it the loss of x264: each panel is nearest to its clip.
    apart = [[np.abs(panel - clip).mean() for clip in clips] for panel in panels]
    assert np.argmin(apart, axis=1).tolist() == [0, 1, 2]
    own = framed(PoseSequence.load(poses).frames(range(4)), (32, 32), "fit")
    np.testing.assert_array_equal(rendered.poses.keypoints, own.keypoints)


def test_a_pose_file_may_bring_its_video(models: Path, driver: Path, tmp_path: Path) -> None:
    poses = sample_poses(tmp_path / "poses.npz")
    settings = config(
        models,
        tmp_path / "grid.mp4",
        driving__poses=poses,
        video=driver,
        prompts='["a man"]',
        driving__start=10,
    )
    check_render(settings)
    render(settings)
    with av.open(str(settings.output)) as container:
        assert len(container.streams.audio) == 1
    assert read_video(settings.output).frames.shape[2] == 48 + 4 * 32 + 4 * GAP


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone__path": "other"}, "side_networks 'first': .* was made for another backbone"),
        ({"driving__frames": 21}, "poses.npz: has 20 frames, and 21 frames from"),
        ({"driving__frames": 17}, "driving.frames=17: this backbone takes at most 16"),
        ({"overlay": "eyes"}, "unknown pose detector 'eyes'"),
        ({"loras": '{"first": "gone"}'}, "loras 'first': gone: no such folder"),
        ({"side_networks": '{"a": "nowhere"}'}, "side_networks 'a': nowhere: .*no such folder"),
        ({"driving__poses": "nobody.npz"}, "nobody.npz: no person in any of its 4 frames"),
        ({"driving__poses": "two.npz"}, "two.npz: shows 2 people, and one is expected; choose"),
        ({"driving__poses": "fast.npz", "video": "driver.mp4"}, "10 frames per second, .* has 30"),
        ({"driving__poses": "short.npz", "video": "driver.mp4"}, "20 frames, and .* has 12"),
        ({"output": "poses.npz/a.mp4", "sheet": "b.png"}, "poses.npz: cannot make this folder"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    models: Path,
    driver: Path,
    tmp_path: Path,
    changes: dict,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample_poses(tmp_path / "poses.npz")
    sample_poses(tmp_path / "fast.npz", fps=30)
    sample_poses(tmp_path / "short.npz", frames=12)
    keypoints = np.ones((4, 2, 18, 3), np.float32)
    keypoints[..., :2] = np.random.default_rng(0).uniform(0, 20, (4, 2, 18, 2))
    keypoints[:, 1, :, 0] += 100
    PoseSequence(keypoints, 200, 50, 10).save(tmp_path / "two.npz")
    PoseSequence(keypoints[:, :1] * 0, 200, 50, 10).save(tmp_path / "nobody.npz")
    monkeypatch.chdir(tmp_path)
    if "backbone__path" in changes:
        changes = {"backbone__path": models / "other"}
    output = Path(changes.pop("output", "grid.mp4"))
    settings = config(models, output, **{"driving__poses": "poses.npz"} | changes)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        _checked_and_rendered(settings)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def _checked_and_rendered(settings: RenderConfig) -> None:
    check_render(settings)
    render(settings)


def test_a_video_without_people_is_refused_before_generating(
    models: Path, driver: Path, tmp_path: Path
) -> None:
    black = write_sounding_video(tmp_path / "black.mp4", np.zeros((8, 32, 48, 3), np.uint8), 10, [])
    settings = config(
        models, tmp_path / "out" / "grid.mp4", driving__video=black, driving__detector="square"
    )
    with pytest.raises(UserError, match=r"black\.mp4: nobody in the frames chosen"):
        render(settings)
    assert not list((tmp_path / "out").iterdir())


def test_what_of_a_prompt_is_cut_off_is_told(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(
        models,
        tmp_path / "grid.mp4",
        driving__poses=sample_poses(tmp_path / "poses.npz"),
        prompts='["a man a man a man a man a man in a hat"]',
    )
    with caplog.at_level("WARNING"):
        render(settings)
    told = {record.getMessage() for record in caplog.records if "cut off" in record.message}
    assert told == {
        "warning: prompt is too long for the text encoder (12 tokens), cut off: 'in a hat'"
    }


@pytest.mark.parametrize("name", ["grid.mp4", "grid.yaml", "grid.json", "sheet.png"])
def test_nothing_is_overwritten(models: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    settings = config(
        models,
        tmp_path / "grid.mp4",
        driving__poses=sample_poses(tmp_path / "poses.npz"),
        sheet=tmp_path / "sheet.png",
    )
    with pytest.raises(UserError, match=f"{name}: exists already"):
        check_render(settings)
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side_networks": '{"a": null}'}, "at least one label with a folder"),
        ({"side_networks": '{"driver": "a"}'}, "'driver' cannot be the label"),
        ({"loras": '{"alone": "a"}'}, "loras: 'alone' is no checkpoint of side_networks"),
        ({"prompts": '["a", " "]'}, "prompts: give at least one, and none that is empty"),
        ({"output": "a.avi"}, "has to end in .mp4 or .gif"),
        ({"sheet": "a.jpg"}, "has to end in .png"),
        ({"side": 4}, "side=4"),
        ({"driving__poses": "null", "driving__video": "b.mp4", "video": "a.mp4"}, "one video only"),
    ],
)
def test_settings_are_checked_when_made(tmp_path: Path, changes: dict, message: str) -> None:
    values = {"driving__poses": "a.npz"} | changes
    with pytest.raises(UserError, match=message):
        config(tmp_path, values.pop("output", "a.mp4"), **values)


def test_the_shipped_config_passes_a_dry_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    flags = ["--config", "configs/animatediff/render.yaml", "--dry-run"]
    flags += ["--output", str(tmp_path / "a.mp4"), "--sheet", "null"]
    monkeypatch.setattr(sys, "argv", ["render.py", *flags])
    runpy.run_path("demo/render.py", run_name="__main__")
    assert "backbone alone: null" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
