"""The estimate of a training's memory, beside what such trainings really take."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from lisa_video.benchmarks.parameters import read_training, training_size
from lisa_video.errors import UserError
from lisa_video.memory.config import TrainJobConfig, parsed_bytes
from lisa_video.memory.estimate import MemoryEstimate, encoded, estimate_memory, verdict
from lisa_video.memory.measured import training_peak
from lisa_video.training.config import TrainConfig
from tests.tiny import tiny_backbone, tiny_checkpoint
from tests.tiny_wan import tiny_wan_checkpoint
from tests.training.runs import tiny_config, write_clips

ROOT = Path(__file__).parents[2]
GIB = 2**30
CLOSE = 0.15


def wide_checkpoint(folder: Path) -> Path:
    """Wider than the tiny one, so that activations and weights weigh more than the rest."""
    return tiny_checkpoint(folder, tiny_backbone(block_out_channels=(32, 64)))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "animatediff": wide_checkpoint(folder / "animatediff"),
        "wan": tiny_wan_checkpoint(folder / "wan"),
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("memory"), length=9)


def settings(clips: Path, checkpoint: Path, output: Path, **changes: Any) -> TrainConfig:
    quiet = {"data__cache_in_memory": False, "data__cache_encodings": False, "steps": 2}
    return tiny_config(clips, output, str(checkpoint), probe__every=0, **(quiet | changes))


CASES: dict[str, dict[str, Any]] = {
    "lisa": {},
    "plain": {"objective": "plain", "data__batch_size": 3},
    "checkpointing": {"gradient_checkpointing": True, "data__frames": 8},
    "bf16": {"mixed_precision": "bf16", "data__batch_size": 3},
    "math attention": {"attention": "math", "data__size": (32, 32)},
    "accumulation": {"optimizer__gradient_accumulation_steps": 2},
    "wan": {"backbone__kind": "wan", "data__frames": 9, "alignment__tap": "block_2"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_takes_what_was_estimated(
    case: str, clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    changes = CASES[case]
    checkpoint = checkpoints[changes.get("backbone__kind", "animatediff")]
    config = settings(clips, checkpoint, tmp_path / "run", **changes)
    estimated = estimate_memory(config, on_cuda=False).peak
    AcceleratorState._reset_state(reset_partial_state=True)  # of another precision
    measured = training_peak(config, torch.device("cpu"), lambda backbone: backbone)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert estimated == pytest.approx(measured, rel=CLOSE), estimated / measured


def test_what_saves_memory_lowers_the_estimate(
    clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    config = settings(clips, checkpoints["animatediff"], tmp_path / "run", data__size=(32, 32))

    def estimate(**changes: Any) -> MemoryEstimate:
        return estimate_memory(replace(config, **changes), on_cuda=False)

    base = estimate()
    assert base.other_activations < base.activations
    saved = estimate(gradient_checkpointing=True)
    assert (saved.activations, saved.other_activations) == (
        base.other_activations,
        base.activations,
    )
    assert saved.peak < base.peak
    assert estimate(attention="math").activations > base.activations

    cached = estimate(data=replace(config.data, cache=tmp_path / "cache", views=1))
    assert "VAE" in base.weights and "VAE" not in cached.weights
    assert "encoding" in base.phases and "encoding" not in cached.phases
    parked = estimate(offload="encoders")
    assert parked.resident == cached.resident < base.resident
    assert parked.phases["encoding"] <= base.phases["encoding"]

    no_average = estimate(ema=replace(config.ema, decay=0.0))
    assert base.resident - no_average.resident == base.weights["average of the side network"]


def test_shares_of_several_processes(
    clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    config = settings(clips, checkpoints["animatediff"], tmp_path / "run")
    one = estimate_memory(config, on_cuda=True)
    ddp = estimate_memory(config, on_cuda=True, processes=4)
    assert ddp.resident == one.resident
    assert ddp.gradients == 2 * one.gradients  # buckets beside them
    whole = estimate_memory(config, on_cuda=True, processes=4, sharding="fsdp2_gathered")
    split = estimate_memory(config, on_cuda=True, processes=4, sharding="fsdp2")
    for each in (whole, split):
        assert 4 * each.optimizer == pytest.approx(one.optimizer, abs=4)
        assert 4 * each.gradients == pytest.approx(one.gradients, abs=4)
    assert 0 < split.working < whole.working
    assert one.working == ddp.working == 0
    assert one.overhead > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["animatediff/sd15_lisa", "wan/wan21_1_3b_lisa"])
def test_released_checkpoints_are_estimated_without_their_weights(name: str) -> None:
    """Parameters agree with their own count; nothing is so large that it would fit nowhere."""
    published = ROOT / "configs" / "published"
    config = read_training(ROOT / "configs" / f"{name}.yaml")
    config = replace(config, optimizer=replace(config.optimizer, gradient_accumulation_steps=1))
    estimate = estimate_memory(config, on_cuda=True, published=published)
    size = training_size(config, published)
    average = estimate.weights["average of the side network"]
    held = estimate.resident - estimate.overhead + estimate.gradients
    assert held == pytest.approx(size.frozen_bytes + size.trained_bytes, rel=1e-3)
    assert average < size.trained_bytes / 4
    assert GIB < estimate.activations < 40 * GIB
    # Most of what is kept without gradient checkpointing is computed again with it.
    assert estimate.other_activations > 4 * estimate.activations


def test_the_job_prints_the_table_and_trains_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "pipelines/train.py",
            "--config=configs/animatediff/train_lisa.yaml",
            f"--output={tmp_path / 'run'}",
            "--data.root=nowhere",
            "--estimate",
            "--estimate_memory=100MiB",
            "--estimate_device=cpu",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["on", "each", "device", "GiB"]
    assert any(line.startswith("activations, without gradient checkpointing") for line in lines)
    assert "of 0.10 GiB: does not fit" in lines[-1]
    assert not (tmp_path / "run").exists()


def test_verdicts_and_sizes() -> None:
    assert verdict(3 * GIB, 4 * GIB) == "peak 3.00 GiB of 4.00 GiB: fits, 1.00 GiB left"
    assert verdict(5 * GIB, 4 * GIB).endswith("does not fit, 1.00 GiB too much")
    assert parsed_bytes("24GiB") == 24 * GIB == parsed_bytes(" 24 gib ")
    assert parsed_bytes("1.5 GB") == 1_500_000_000
    assert parsed_bytes("1024") == 1024
    for wrong in ("", "24 apples", "GiB", "-1GiB", "0"):
        with pytest.raises(UserError, match="estimate_memory="):
            parsed_bytes(wrong)


def test_estimate_keys_stay_out_of_the_training(clips: Path, tmp_path: Path) -> None:
    config = tiny_config(clips, tmp_path / "run")
    job = TrainJobConfig(**vars(config), estimate=True, estimate_memory="8GiB")
    assert job.training == config
    assert not [key for key in vars(job.training) if "estimate" in key]
    assert not encoded(job)


def test_what_does_not_fit_the_backbone_is_refused(
    clips: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    config = settings(clips, checkpoints["wan"], tmp_path / "run", backbone__kind="wan")
    with pytest.raises(UserError, match=r"data\.frames=4"):
        estimate_memory(
            replace(config, alignment=replace(config.alignment, tap="block_2")), on_cuda=False
        )
    missing = replace(config, backbone=replace(config.backbone, path=str(tmp_path / "absent")))
    with pytest.raises(UserError, match="no such folder"):
        estimate_memory(missing, on_cuda=False)
