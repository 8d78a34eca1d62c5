"""Training in two real processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.cli import resolved_yaml
from lisa_video.manifest import DatasetWriter
from lisa_video.poses import PoseSequence
from lisa_video.training.config import AlignmentConfig, TrainConfig
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_checkpoint
from tests.training.runs import tiny_config

ROOT = Path(__file__).parents[2]


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


ECONOMY = {
    "data__frames": 4,
    "alignment": AlignmentConfig(
        tap=["down_1", "mid"],
        every=2,
        fraction=0.5,
        schedule="until",
        until=4,
        frame_weighting=False,
    ),
}


@pytest.mark.slow
def test_two_processes_agree_on_steps_and_clips_with_an_alignment_loss(tmp_path: Path) -> None:
    clips, backbone = write_mixed(tmp_path / "clips"), tiny_checkpoint(tmp_path / "backbone")
    logs = {}
    for processes in (1, 2):
        config = tiny_config(
            clips,
            tmp_path / f"run_{processes}",
            str(backbone),
            data__batch_size=4 // processes,
            side_network__injection=["down_1", "down_2", "mid"],
            pose_dropout=0.0,
            probe__every=0,
            **ECONOMY,
        )
        launch(config, processes, tmp_path)
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
        config = tiny_config(
            clips,
            tmp_path / f"run_{processes}",
            str(backbone),
            data__buckets=[(4, 16, 16), (2, 16, 8)],
            data__max_stride=2,
            data__augmentation=AugmentationConfig(flip=0.5, crop_scale=(0.5, 1.0)),
            data__batch_size=4 // processes,
            # Frame weights are normalised within a batch.
            alignment__frame_weighting=False,
            pose_dropout=0.0,
            probe__every=0,
        )
        launch(config, processes, tmp_path)
        logs[processes] = [row["loss"] for row in read_log(config.output)]
    assert len(logs[1]) == 6
    np.testing.assert_allclose(logs[2], logs[1], rtol=1e-5)


def launch(config: TrainConfig, processes: int, folder: Path) -> None:
    (folder / "train.yaml").write_text(resolved_yaml(config))
    arguments = ["--config", str(folder / "train.yaml")]
    launcher = ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    subprocess.run(
        [sys.executable, "-m", *launcher, "pipelines/train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
