"""TensorBoard and Weights & Biases, each for real."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import PartialState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lisa_video.errors import UserError
from lisa_video.training import trackers
from lisa_video.training.config import TrainConfig
from lisa_video.training.trackers import (
    LabelledVideo,
    TensorBoardTracker,
    animated_gif,
    check_trackers,
    start_trackers,
    wandb_id,
)
from lisa_video.video import write_video
from tests.training.runs import tiny_config


def moving(frames: int) -> np.ndarray:
    """A bright column that wanders: (F, 8, 16, 3)."""
    video = np.zeros((frames, 8, 16, 3), np.uint8)
    for index, frame in enumerate(video):
        frame[:, index % 16] = 255
    return video


def config_of(tmp_path: Path, *names: str) -> TrainConfig:
    (tmp_path / "run").mkdir(exist_ok=True)
    return tiny_config(tmp_path / "clips", tmp_path / "run", trackers=list(names))


def board(config: TrainConfig) -> EventAccumulator:
    return EventAccumulator(str(config.output / "tensorboard"), {"images": 0}).Reload()


def test_tensorboard_gets_scalars_lists_and_moving_pictures(tmp_path: Path) -> None:
    config = config_of(tmp_path, "tensorboard")
    (tracker,) = start_trackers(config, 0)
    tracker.write(1, {"loss": 0.5, "validation/pck@0.1": 0.25, "frame_shares": [0.75, 0.25]})
    video = LabelledVideo("00-clip", tmp_path / "unused.mp4", moving(5), 10.0)
    tracker.show(1, [video])
    tracker.close()
    found = board(config)
    scalars = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    assert scalars == {
        "loss": 0.5,
        "validation/pck@0.1": 0.25,
        "frame_shares/00": 0.75,
        "frame_shares/01": 0.25,
    }
    (image,) = found.Images("validation/00-clip")
    assert (image.step, image.width, image.height) == (1, 16, 8)
    picture = Image.open(io.BytesIO(image.encoded_image_string))
    assert picture.format == "GIF" and picture.n_frames == 5
    for index in range(5):
        picture.seek(index)
        assert np.asarray(picture.convert("RGB"))[4, :, 0].argmax() == index


def test_steps_that_are_done_again_are_shown_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, "tensorboard")
    tracker = TensorBoardTracker(config, 0)
    for step in range(6):
        tracker.write(step, {"loss": 1.0})
    tracker.close()
    tracker = TensorBoardTracker(config, 3)
    tracker.write(4, {"loss": 2.0})
    tracker.close()
    points = [(event.step, event.value) for event in board(config).Scalars("loss")]
    assert points == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]


@pytest.mark.parametrize(("frames", "shown"), [(1, 1), (32, 32), (33, 17), (81, 27)])
def test_long_videos_are_thinned_and_last_as_long(frames: int, shown: int) -> None:
    picture = Image.open(io.BytesIO(animated_gif(moving(frames), 16.0)))
    assert getattr(picture, "n_frames", 1) == shown
    total = 0
    for index in range(shown):
        picture.seek(index)
        total += picture.info.get("duration", 0)
    if shown > 1:
        assert total == pytest.approx(1000 * frames / 16, rel=0.15)


def test_wandb_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_trackers(config_of(tmp_path, "tensorboard"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lisa_video\[wandb\]'"):
        check_trackers(config_of(tmp_path, "wandb"))


def test_trackers_are_named_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name each once"):
        config_of(tmp_path, "wandb", "wandb")


def test_a_wandb_run_goes_on_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Offline, in a real run of its own service, interrupted after step 3 and gone on from 1."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    PartialState()
    config = config_of(tmp_path, "wandb")
    path = tmp_path / "clip.mp4"
    write_video(path, moving(4), 8.0)
    video = LabelledVideo("00-clip", path, moving(4), 8.0)
    for first in (0, 1):
        (tracker,) = start_trackers(config, first)
        for step in range(first + 1, 4):
            tracker.write(step, {"loss": 1 / step, "frame_shares": [0.5, float("nan")]})
        tracker.show(3, [video])
        run = tracker.tracker.tracker  # type: ignore[attr-defined]
        assert run.id == wandb_id(config.output)
        assert run.config["objective"] == "lisa" and run.config["optimizer"]["lr"] == 1e-3
        summary = dict(run.summary)
        assert summary["step"] == 3 and summary["loss"] == pytest.approx(1 / 3)
        assert summary["validation/00-clip"]["_type"] == "video-file"
        assert "frame_shares/01" not in summary
        tracker.close()
    parts = sorted((config.output / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    assert {part.name.rpartition("-")[2] for part in parts} == {wandb_id(config.output)}
    assert len(list((config.output / "wandb").rglob("*.mp4"))) == 2


def test_wandb_without_a_login_is_one_line(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from accelerate.state import PartialState
from lisa_video.errors import UserError
from lisa_video.training.trackers import start_trackers
from tests.training.runs import tiny_config
PartialState()
output = Path(sys.argv[1])
try:
    start_trackers(tiny_config(output, output, trackers=["wandb"]), 0)
except UserError as error:
    print("ERROR", error)
"""
    settings = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "WANDB_MODE": "online"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **settings},
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert len(lines) == 1 and "WANDB_MODE=offline" in lines[0], (done.stdout, done.stderr)
