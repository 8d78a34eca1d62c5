"""Generation from pose files and driving videos, with real models, files and command line."""

import json
import runpy
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lisa_video import detectors
from lisa_video.adapters import add_lora, lora_parameters, save_lora
from lisa_video.cli import parse_config
from lisa_video.driving_source import driving_poses, frame_indices
from lisa_video.errors import UserError
from lisa_video.generation import check_generation, generate
from lisa_video.generation_config import DrivingConfig, GenerateConfig
from lisa_video.poses import PoseSequence
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.video import read_video, write_video
from tests.tiny import awakened, tiny_backbone, tiny_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    backbone = tiny_backbone()
    tiny_checkpoint(folder / "backbone", backbone)
    awakened(UNetSideNetwork.from_backbone(backbone)).save_pretrained(folder / "side")
    return folder


@pytest.fixture
def pose_file(tmp_path: Path) -> Path:
    """Twelve frames at 20 fps: somebody walks from left to right."""
    keypoints = np.random.default_rng(0).uniform(0, 40, (12, 1, 18, 3)).astype(np.float32)
    keypoints[..., 0] += np.arange(12)[:, None, None] * 2
    keypoints[..., 2] = 1
    path = tmp_path / "poses.npz"
    PoseSequence(keypoints, width=80, height=60, fps=20).save(path)
    return path


def config(models: Path, output: Path, *overrides: str, **changes: object) -> GenerateConfig:
    """As from the command line."""
    values = {
        "backbone.path": models / "backbone",
        "side_network": models / "side",
        "prompt": "a man",
        "output": output,
        "driving.frames": 3,
        "sampling.steps": 2,
    } | {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return parse_config(GenerateConfig, [*arguments, *overrides], "test")[0]


def test_pose_file_becomes_a_video(models: Path, pose_file: Path, tmp_path: Path) -> None:
    first, again = (
        config(
            models,
            tmp_path / "new" / f"{name}.mp4",
            driving__poses=pose_file,
            driving__fps=10,
            poses_output=tmp_path / "new" / f"{name}.npz",
        )
        for name in ("first", "again")
    )
    check_generation(first)
    assert not first.output.parent.exists()
    generate(first)
    video = read_video(first.output)
    assert video.frames.shape == (3, 32, 32, 3)
    assert video.fps == 10

    poses = PoseSequence.load(first.poses_output)
    assert (len(poses), poses.width, poses.height, poses.fps) == (3, 32, 32, 10)
    source = PoseSequence.load(pose_file).keypoints[[0, 2, 4]]
    expected = source[..., :2] * (32 / 80) + (0, (32 - 60 * 32 / 80) / 2)
    np.testing.assert_allclose(poses.keypoints[..., :2], expected, atol=1e-4)

    settings = first.output.with_suffix(".yaml")
    assert parse_config(GenerateConfig, ["--config", str(settings)], "test")[0] == first
    generate(again)
    np.testing.assert_array_equal(read_video(again.output).frames, video.frames)


def test_adapters_matter_where_poses_control(models: Path, pose_file: Path, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    torch.manual_seed(1)
    add_lora(backbone.main_network, 2, 2, ["to_q", "to_v"])
    weights = lora_parameters(backbone.main_network)
    for parameter in weights.values():
        torch.nn.init.normal_(parameter)
    folder = tmp_path / "lora"
    save_lora(backbone.main_network, weights, folder, backbone.pipeline_class, "unet")

    def frames(name: str, *flags: str) -> np.ndarray:
        job = config(models, tmp_path / f"{name}.mp4", *flags, driving__poses=pose_file)
        check_generation(job)
        generate(job)
        return read_video(job.output).frames

    adapted = ("--lora", str(folder))
    assert not np.array_equal(frames("with", *adapted), frames("without"))
    uncontrolled = ("--control.scale", "0")
    np.testing.assert_array_equal(
        frames("prior with", *adapted, *uncontrolled), frames("prior", *uncontrolled)
    )
    with pytest.raises(UserError, match=r"nowhere.*not readable adapters"):
        check_generation(
            config(models, tmp_path / "x.mp4", "--lora", "/nowhere", driving__poses=pose_file)
        )


def test_poses_prompt_seed_and_control_all_matter(
    models: Path, pose_file: Path, tmp_path: Path
) -> None:
    videos = {}
    for name, changes in {
        "reference": {},
        "seed": {"sampling__seed": 1},
        "prompt": {"prompt": "two"},
        "start": {"driving__start": 5},
        "uncontrolled": {"control__scale": 0},
        "never": {"control__end": 0},
        "size": {"size": "[36,28]"},
    }.items():
        settings = config(models, tmp_path / f"{name}.mp4", driving__poses=pose_file, **changes)
        generate(settings)
        videos[name] = read_video(settings.output).frames
    assert videos.pop("size").shape == (3, 28, 36, 3)
    np.testing.assert_array_equal(videos["never"], videos.pop("uncontrolled"))
    reference = videos.pop("reference")
    assert all((frames != reference).any() for frames in videos.values())


def test_driving_video_is_detected_frame_by_frame(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bright square moves; the detector puts every joint into its middle."""

    class SquareDetector:
        name, skeleton = "square", "openpose18"

        def stream(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for frame in frames:
                rows, columns = np.nonzero(frame.min(axis=-1) > 128)
                people = np.ones((1, 18, 3), dtype=np.float32)
                people[..., :2] = (columns.mean() + 0.5, rows.mean() + 0.5)
                yield people

    frames = np.zeros((10, 32, 48, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[8:16, 2 * index : 2 * index + 8] = 255
    write_video(tmp_path / "driving.mp4", frames, 30)
    builders: Mapping = {"square": lambda _weights: SquareDetector()}
    monkeypatch.setattr(detectors, "DETECTORS", builders)
    settings = config(
        models,
        tmp_path / "out.mp4",
        driving__video=tmp_path / "driving.mp4",
        driving__detector="square",
        driving__start=1,
        driving__fps=15,
        driving__framing="stretch",
    )
    check_generation(settings)
    poses = driving_poses(settings.driving)
    assert (poses.detector, poses.fps) == ("square", 15)
    middles = poses.keypoints[:, 0, 0, :2]
    np.testing.assert_allclose(middles, [(6, 12), (10, 12), (14, 12)], atol=0.6)
    assert generate(settings).width == 32
    assert len(read_video(settings.output).frames) == 3


def test_a_driver_of_any_length_becomes_a_video_in_windows(
    models: Path, pose_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty frames, of which a window takes six; prompts change, and control fades."""
    source = PoseSequence.load(pose_file)
    source.frames([index % 12 for index in range(40)]).save(tmp_path / "long.npz")
    settings = config(
        models,
        tmp_path / "long.mp4",
        driving__poses=tmp_path / "long.npz",
        driving__frames="all",
        window="{frames: 6, overlap: 2, noise: freenoise}",
        later_prompts="[{start: 20, prompt: two}]",
        control__scale=str([1 - frame / 40 for frame in range(40)]),
        control__share="true",
        sampling__scheduler="EulerDiscreteScheduler",
        vae_tiling="true",
    )
    check_generation(settings)
    assert len(generate(settings)) == 40
    video = read_video(settings.output)
    assert video.frames.shape == (40, 32, 32, 3)
    assert video.fps == 20
    assert "40 frames, in up to 11 windows of 6 frames" in capsys.readouterr().out
    written = settings.output.with_suffix(".yaml")
    assert parse_config(GenerateConfig, ["--config", str(written)], "test")[0] == settings


def test_a_driver_shorter_than_a_window_is_followed_at_once(
    models: Path, pose_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = []
    for name, window in (("windowed", "{frames: 16, overlap: 4}"), ("plain", "null")):
        settings = config(
            models,
            tmp_path / f"{name}.mp4",
            driving__poses=pose_file,
            driving__frames="all",
            window=window,
        )
        generate(settings)
        videos.append(read_video(settings.output).frames)
    np.testing.assert_array_equal(*videos)
    out = capsys.readouterr().out
    assert "12 frames, no longer than a window of 16: at once" in out


@pytest.mark.parametrize(("fps", "frames"), [(None, 10), (30, 10), (15, 5), (12, 4), (60, 19)])
def test_all_frames_of_a_rate_are_taken(fps: float | None, frames: int) -> None:
    driving = DrivingConfig(poses=Path("a.npz"), frames="all", fps=fps, start=2)
    indices = frame_indices(driving, 12, 30.0, Path("a.npz"))
    assert len(indices) == frames
    assert indices[0] == 2 and indices[-1] <= 11
    one_more = replace(driving, frames=frames + 1)
    with pytest.raises(UserError, match="has 12 frames"):
        frame_indices(one_more, 12, 30.0, Path("a.npz"))
    with pytest.raises(UserError, match=r"all frames from driving.start=12"):
        frame_indices(replace(driving, start=12), 12, 30.0, Path("a.npz"))


def test_unusable_driving_videos_are_refused_before_work(models: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", np.zeros((4, 16, 16, 3), dtype=np.uint8), 10)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "short.mp4").read_bytes()[:300])
    for changes, message in [
        ({"driving__frames": 5}, "short.mp4: has 4 frames, and 5 frames from driving.start=0"),
        ({"driving__video": tmp_path / "broken.mp4"}, "broken.mp4: "),
        ({"driving__detector": "eyes"}, "unknown pose detector 'eyes', known: .*blazepose"),
    ]:
        changes = {"driving__video": tmp_path / "short.mp4"} | changes
        with pytest.raises(UserError, match=message):
            check_generation(config(models, tmp_path / "out.mp4", **changes))


def test_frames_without_people_are_refused(tmp_path: Path) -> None:
    keypoints = np.zeros((4, 1, 18, 3), dtype=np.float32)
    keypoints[3] = 1
    PoseSequence(keypoints, width=8, height=8, fps=10).save(tmp_path / "poses.npz")
    driving = DrivingConfig(poses=tmp_path / "poses.npz", frames=3)
    with pytest.raises(UserError, match=r"poses.npz: nobody in the frames chosen"):
        driving_poses(driving)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driving__frames": 10, "driving__start": 4}, "has 12 frames, and 10 frames from .* 13"),
        ({"driving__fps": 5}, "3 frames from driving.start=0 at 5 fps reach to frame 8"),
        ({"driving__poses": "nowhere.npz"}, "nowhere.npz: no such pose file"),
        ({"driving__poses": "null", "driving__video": "no.mp4"}, "no.mp4: no such video"),
        ({"driving__frames": 17, "driving__fps": 1000}, "this backbone takes at most 16"),
        ({"size": "[30,32]"}, r"size=\[30, 32\]: both must be multiples of 4"),
        ({"side_network": "elsewhere"}, "elsewhere: no such folder, and no hub name"),
        ({"backbone__path": "/elsewhere"}, "/elsewhere: no such folder"),
        ({"backbone__kind": "other"}, "unknown backbone 'other', known: animatediff, cogvideox"),
        (
            {"window": "{frames: 20}", "driving__fps": 100, "driving__frames": 30},
            "frames=20: .* 16",
        ),
        ({"control__scale": "[1.0, 0.5]"}, "control_scale: 2 values for 3 frames"),
        ({"later_prompts": "[{start: 3, prompt: b}]"}, "starts at frame 3, and the video has 3"),
        ({"sampling__scheduler": "Sampler"}, "diffusers has no scheduler of this name"),
        ({"sampling__scheduler": "UNetMotionModel"}, "diffusers has no scheduler of this name"),
        ({"sampling__scheduler": "FlowMatchEulerDiscreteScheduler"}, "that predicts v_prediction"),
        ({"offload": "model"}, "offload=model: is for CUDA, and torch finds no such device"),
    ],
)
def test_what_cannot_work_is_refused_before_work(
    models: Path, pose_file: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    if changes.get("driving__fps") == 5:
        changes = changes | {"driving__poses": shortened(pose_file, 8)}
    settings = config(models, tmp_path / "out.mp4", **{"driving__poses": pose_file} | changes)
    with pytest.raises(UserError, match=message) as caught:
        check_generation(settings)
    assert "\n" not in str(caught.value)


def shortened(pose_file: Path, frames: int) -> Path:
    path = pose_file.with_name("short.npz")
    PoseSequence.load(pose_file).frames(range(frames)).save(path)
    return path


def test_side_network_of_another_backbone_is_refused(
    models: Path, pose_file: Path, tmp_path: Path
) -> None:
    tiny_checkpoint(tmp_path / "other", tiny_backbone(seed=1))
    settings = config(
        models, tmp_path / "out.mp4", driving__poses=pose_file, backbone__path=tmp_path / "other"
    )
    with pytest.raises(UserError, match="was made for another backbone"):
        check_generation(settings)


@pytest.mark.parametrize("name", ["out.mp4", "out.yaml", "poses_out.npz"])
def test_nothing_is_overwritten(models: Path, pose_file: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    settings = config(
        models,
        tmp_path / "out.mp4",
        driving__poses=pose_file,
        poses_output=tmp_path / "poses_out.npz",
    )
    with pytest.raises(UserError, match=f"{name}: exists already"):
        check_generation(settings)
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"output": "clip.avi"}, "has to end in .mp4"),
        ({"driving__video": "b.mp4"}, "either driving.poses or driving.video"),
        ({"driving__frames": "0"}, "driving.frames=0: must be at least 1"),
        ({"driving__fps": "-1"}, "driving.fps=-1"),
        ({"control__start": "0.9", "control__end": "0.1"}, "0 <= start <= end <= 1"),
        ({"sampling__steps": "0"}, "sampling.steps=0"),
        ({"window": "{frames: 4, overlap: 4}"}, "window.overlap=4: must be below window.frames=4"),
        ({"later_prompts": "[{start: 0, prompt: b}]"}, "the first must start at 0"),
        ({"offload": "model", "device": "cpu"}, "offload=model: is for CUDA, and device is cpu"),
    ],
)
def test_settings_are_checked_when_made(tmp_path: Path, overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(tmp_path, overrides.pop("output", "a.mp4"), driving__poses="a.npz", **overrides)


def test_dry_run_checks_and_writes_nothing(models: Path, pose_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "pipelines/generate.py"), "--dry-run"]
    values = {
        "backbone.path": models / "backbone",
        "side_network": models / "side",
        "driving.poses": pose_file,
        "driving.frames": 3,
        "prompt": "a man",
        "output": tmp_path / "out.mp4",
    }
    for name, value in values.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "guidance_scale: 3.0" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["poses.npz"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "out.gif"}, "has to end in .mp4"),
        ({"output": "poses.npz/out.mp4"}, "poses.npz: cannot make this folder"),
        ({"sampling.guidance": "3"}, "unknown flag --sampling.guidance, nearest is --sampling."),
        ({"driving.frames": "17", "driving.fps": "60"}, "this backbone takes at most 16"),
        ({"driving.poses": "nan.npz"}, "nan.npz: "),
        ({"driving.poses": "nobody.npz"}, "nobody.npz: "),
        ({"backbone.path": "other"}, "was made for another backbone"),
    ],
)
def test_command_line_refuses_in_one_line(
    models: Path,
    pose_file: Path,
    tmp_path: Path,
    changes: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = dict(np.load(pose_file))
    np.savez(tmp_path / "nan.npz", **damaged | {"keypoints": damaged["keypoints"] * np.nan})
    np.savez(tmp_path / "nobody.npz", **damaged | {"keypoints": damaged["keypoints"] * 0})
    tiny_checkpoint(tmp_path / "other", tiny_backbone(seed=1))
    before = sorted(tmp_path.iterdir())
    values = {
        "backbone.path": str(models / "backbone"),
        "side_network": str(models / "side"),
        "driving.poses": "poses.npz",
        "driving.frames": "3",
        "prompt": "a man",
        "output": "out.mp4",
    }
    flags = [part for name, value in (values | changes).items() for part in (f"--{name}", value)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", *flags])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "pipelines/generate.py"), run_name="__main__")
    stderr = capsys.readouterr().err
    assert caught.value.code == 2
    assert stderr.startswith("error: ")
    assert message in stderr
    assert stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_half_precision_generates(models: Path, pose_file: Path, tmp_path: Path) -> None:
    settings = config(models, tmp_path / "out.mp4", driving__poses=pose_file, dtype="bfloat16")
    generate(settings)
    assert torch.from_numpy(read_video(settings.output).frames).float().std() > 0


def test_a_retargeted_driver_is_followed_and_told_of(
    models: Path, pose_file: Path, tmp_path: Path
) -> None:
    settings = config(
        models,
        tmp_path / "out.mp4",
        driving__poses=pose_file,
        driving__retarget__reference=pose_file,
        driving__retarget__frame=11,
        driving__smoothing__max_gap=2,
    )
    assert (settings.driving.retarget.frame, settings.driving.smoothing.max_gap) == (11, 2)
    check_generation(settings)
    generate(settings)
    record = json.loads((tmp_path / "out.driver.json").read_text())
    assert [frame["mode"] for frame in record["frames"]] == ["limbs"] * 3
    stored = settings.output.with_suffix(".yaml")
    assert parse_config(GenerateConfig, ["--config", str(stored)], "test")[0] == settings
    with pytest.raises(UserError, match=r"out\.mp4: exists already"):
        check_generation(settings)
