"""How the processes and devices of a run work together: accelerate's part."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from lisa_video.training.config import TrainConfig


def build_accelerator(config: TrainConfig) -> Accelerator:
    """Of this process, as `accelerate launch` or the environment says."""
    # A point without projection leaves encoder weights behind it unused.
    subset = DistributedDataParallelKwargs(
        find_unused_parameters=config.side_network.injection != "all"
    )
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.optimizer.gradient_accumulation_steps,
        kwargs_handlers=[subset],
    )
