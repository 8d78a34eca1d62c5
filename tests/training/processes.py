"""Trainings in real processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from lisa_video.cli import resolved_yaml
from lisa_video.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
"""What `accelerate launch` sets for configs/accelerate/fsdp2.yaml."""
ZERO2 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
ZERO3 = ZERO2 | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
"""The same of deepspeed_zero2.yaml and deepspeed_zero3.yaml."""


def run_training(config: TrainConfig, processes: int, **environment: str) -> None:
    """Train with pipelines/train.py, on the CPU and with gloo."""
    path = config.output.with_suffix(".yaml")
    path.write_text(resolved_yaml(config))
    launcher = ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "pipelines/train.py", "--config", str(path)],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
