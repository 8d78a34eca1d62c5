"""A tiny dataset and the settings of a tiny run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lisa_video.cli import resolved_yaml, run_job
from lisa_video.manifest import DatasetWriter
from lisa_video.poses import PoseSequence
from lisa_video.training.checkpoint import latest_checkpoint, load_state
from lisa_video.training.config import (
    AlignmentConfig,
    BackboneConfig,
    DataConfig,
    EmaConfig,
    OptimizerConfig,
    ProbeConfig,
    SideNetworkConfig,
    TimestepConfig,
    TrainConfig,
)
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.training.setup import check_training

SIZE = 16
# Of the log, what differs from run to run.
MEASURED = {"step_s", "data_s", "clips_s", "frames_s", "data_share", "memory_gib"}
MEASURED |= {"validation/seconds"}
FRAMES = 6


def write_clips(root: Path, train: int = 7, validation: int = 3, length: int = FRAMES) -> Path:
    """Two-coloured clips: above a line that moves with the joints it is bright."""
    with DatasetWriter(root) as writer:
        for index in range(train + validation):
            rng = np.random.default_rng(index)
            height = np.clip(rng.integers(2, SIZE - 2) + np.arange(length) % 3 - 1, 1, SIZE - 1)
            frames = np.full((length, SIZE, SIZE, 3), 40, dtype=np.uint8)
            keypoints = np.ones((length, 1, 18, 3), dtype=np.float32)
            keypoints[..., 0] = rng.uniform(2, SIZE - 2, size=18)
            for frame, line in enumerate(height):
                frames[frame, :line] = 220
                keypoints[frame, :, :, 1] = line
            keypoints[..., 2] = rng.uniform(0.2, 1.0, size=(length, 1, 18))
            poses = PoseSequence(keypoints, SIZE, SIZE, fps=8.0, detector="ground-truth")
            split = "train" if index < train else "validation"
            caption = f"a man {'abcdefgh'[index % 8]}"
            writer.add(f"clip_{index}", frames, poses, caption=caption, split=split)
    return root


def tiny_config(clips: Path, output: Path, backbone: str = "unused", **changes: Any) -> TrainConfig:
    """Six steps of two clips; `changes` as "section__key=value" or "key=value"."""
    config = TrainConfig(
        backbone=BackboneConfig(backbone),
        data=DataConfig(
            clips,
            frames=4,
            size=(SIZE, SIZE),
            batch_size=2,
            cache_in_memory=True,
            cache_encodings=True,
        ),
        output=output,
        steps=6,
        side_network=SideNetworkConfig(pose_init="normal"),
        alignment=AlignmentConfig(tap="down_1"),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=2),
        ema=EmaConfig(decay=0.9),
        timesteps=TimestepConfig(shift=2.0),
        probe=ProbeConfig(every=3, clips=3, draws=1),
        text_dropout=0.3,
        pose_dropout=0.2,
        log_every=1,
        checkpoint_every=100,
    )
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        if section:
            value, name = replace(getattr(config, section), **{key: value}), section
        config = replace(config, **{name: value})
    return config


def written(folder: Path, config: TrainConfig) -> Path:
    """The settings as a YAML file."""
    path = folder / "train.yaml"
    path.write_text(resolved_yaml(config))
    return path


def launch(config: Path, *flags: str) -> int | None:
    """Run the training job in this process; the exit code."""
    try:
        run_job(
            TrainConfig,
            train,
            check=check_training,
            description="",
            argv=["--config", str(config), *flags],
        )
    except SystemExit as end:
        return int(end.code or 0)
    return None


def untimed_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a log without what is measured of the machine."""
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_log(output)]


def assert_same_runs(one: Path, other: Path) -> None:
    """Two finished runs agree bit for bit: log, finished networks, and all of the last checkpoint."""
    assert untimed_log(one) == untimed_log(other)
    ends = [latest_checkpoint(output) for output in (one, other)]
    assert ends[0] is not None and ends[1] is not None
    first, second = (load_state(end) for end in ends if end is not None)
    assert first.step == second.step
    torch.testing.assert_close(first.optimizer, second.optimizer, rtol=0, atol=0)
    assert first.scaler == second.scaler
    for folders in (ends, [one / "side_network", other / "side_network"]):
        files = [
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
            for folder in folders
            if folder is not None
        ]
        assert files[0] and files[0] == files[1]
