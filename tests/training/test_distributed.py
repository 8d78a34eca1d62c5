"""Training in several real processes: as one, with the same clips per step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.errors import UserError
from lisa_video.loading import load_pretrained
from lisa_video.manifest import DatasetWriter
from lisa_video.poses import PoseSequence
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.acceleration import build_accelerator
from lisa_video.training.config import AlignmentConfig, TrainConfig
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_checkpoint
from tests.training.processes import FSDP, ZERO2, ZERO3, run_training
from tests.training.runs import tiny_config, write_clips


def write_mixed(root: Path) -> Path:
    """Four square clips and two wide ones."""
    rng = np.random.default_rng(0)
    with DatasetWriter(root) as writer:
        for index in range(6):
            width, height = (16, 16) if index < 4 else (16, 8)
            frames = rng.integers(0, 256, (6, height, width, 3)).astype(np.uint8)
            keypoints = rng.uniform(0.2, 1, (6, 1, 18, 3)).astype(np.float32)
            keypoints[..., :2] *= (width, height)
            poses = PoseSequence(keypoints, width, height, fps=8.0)
            writer.add(f"clip_{index}", frames, poses, caption="to the left", split="train")
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("distributed") / "backbone")


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose frames have weights of their own."""
    return write_clips(tmp_path_factory.mktemp("distributed") / "clips")


def settings(
    clips: Path, backbone: Path, output: Path, processes: int, **changes: Any
) -> TrainConfig:
    """Four clips a step and pass, whatever the number of processes."""
    defaults = {"data__batch_size": 4 // processes, "steps": 3, "probe__every": 2}
    return tiny_config(clips, output, str(backbone), **(defaults | changes))


def losses(config: TrainConfig) -> list[float]:
    return [row["loss"] for row in read_log(config.output) if "loss" in row]


def assert_same_weights(one: Path, other: Path) -> None:
    networks = [load_pretrained(UNetSideNetwork, run / "side_network") for run in (one, other)]
    states = [network.state_dict() for network in networks]
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


def test_two_processes_are_one_with_the_same_clips(
    weighted: Path, backbone: Path, tmp_path: Path
) -> None:
    """Frames weighed, poses dropped; and one process goes on from what two have saved."""
    one, two = (settings(weighted, backbone, tmp_path / f"run_{count}", count) for count in (1, 2))
    run_training(replace(two, steps=2), 2)
    other = replace(one, output=two.output, data=replace(one.data, batch_size=2))
    with pytest.raises(UserError, match="the run had 4 clips a step, and now it would have 2"):
        train(other)
    train(one)
    train(replace(one, output=two.output))
    assert len(losses(one)) == 3
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    assert_same_weights(two.output, one.output)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["plain", "lisa"])
@pytest.mark.parametrize(
    "environment", [{}, FSDP, ZERO2, ZERO3], ids=["ddp", "fsdp2", "zero2", "zero3"]
)
def test_a_run_goes_on_with_another_number_of_processes(
    objective: str, environment: dict[str, str], weighted: Path, backbone: Path, tmp_path: Path
) -> None:
    """1, then 2, then 1 processes are 1 from beginning to end, accumulated passes included."""
    if "ACCELERATE_USE_DEEPSPEED" in environment:
        pytest.importorskip("deepspeed")
    changes = {"objective": objective, "optimizer__gradient_accumulation_steps": 2}
    whole = settings(weighted, backbone, tmp_path / "whole", 1, **changes)
    run_training(whole, 1)
    for count, steps, variables in ((1, 1, {}), (2, 2, environment), (1, 3, {})):
        part = settings(weighted, backbone, tmp_path / "run", count, **changes)
        run_training(replace(part, steps=steps), count, **variables)
    np.testing.assert_allclose(losses(part), losses(whole), rtol=1e-5)
    assert_same_weights(part.output, whole.output)


@pytest.mark.slow
def test_split_networks_train_and_are_probed_in_bfloat16(
    weighted: Path, backbone: Path, tmp_path: Path
) -> None:
    changes = {"mixed_precision": "bf16", "gradient_checkpointing": True}
    one, two = (
        settings(weighted, backbone, tmp_path / f"run_{count}", count, **changes)
        for count in (1, 2)
    )
    run_training(one, 1)
    run_training(two, 2, **FSDP)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-2)
    one_gap, two_gap = (
        [row["probe/true"] for row in read_log(run.output) if "probe/true" in row]
        for run in (one, two)
    )
    np.testing.assert_allclose(two_gap, one_gap, rtol=1e-2)


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        (FSDP | {"FSDP_VERSION": "1"}, {}, "fsdp_version: 2"),
        (FSDP, {"optimizer__kind": "adafactor"}, r"optimizer\.kind=adafactor"),
        (FSDP, {"lora__rank": 4}, r"lora\.rank 0"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    environment: dict[str, str],
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        build_accelerator(tiny_config(tmp_path, tmp_path / "run", **changes))


ECONOMY: dict[str, Any] = {
    "data__frames": 4,
    "side_network__injection": ["down_1", "down_2", "mid"],
    "alignment": AlignmentConfig(
        tap=["down_1", "mid"],
        every=2,
        fraction=0.5,
        schedule="until",
        until=4,
    ),
}
BUCKETS: dict[str, Any] = {
    "data__buckets": [(4, 16, 16), (2, 16, 8)],
    "data__max_stride": 2,
    "data__augmentation": AugmentationConfig(flip=0.5, crop_scale=(0.5, 1.0)),
}


@pytest.mark.slow
def test_two_processes_agree_on_steps_and_clips_with_an_alignment_loss(tmp_path: Path) -> None:
    clips, backbone = write_mixed(tmp_path / "clips"), tiny_checkpoint(tmp_path / "backbone")
    logs = {}
    for processes in (1, 2):
        output = tmp_path / f"run_{processes}"
        config = settings(clips, backbone, output, processes, steps=6, probe__every=0, **ECONOMY)
        run_training(config, processes)
        logs[processes] = read_log(config.output)
    assert ["alignment" in row for row in logs[1]] == [False, True, False, True, False, False]
    for name in ("loss", "alignment", "alignment/mid", "explained"):
        one, two = ([row[name] for row in logs[n] if name in row] for n in (1, 2))
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Buckets of two lengths and shapes, each step in one of them."""
    clips, backbone = write_mixed(tmp_path / "clips"), tiny_checkpoint(tmp_path / "backbone")
    logs = {}
    for processes in (1, 2):
        output = tmp_path / f"run_{processes}"
        config = settings(clips, backbone, output, processes, steps=6, probe__every=0, **BUCKETS)
        run_training(config, processes)
        logs[processes] = losses(config)
    assert len(logs[1]) == 6
    np.testing.assert_allclose(logs[2], logs[1], rtol=1e-5)
