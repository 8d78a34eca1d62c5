"""Settings of the job that encodes a dataset ahead of training. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig


@dataclass(frozen=True)
class CacheConfig(TrainConfig):
    """The settings of the training that will read the cache, and how the work is spread."""

    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: a Ray cluster, whose machines see the same folders."""
    encoders: int = 1
    """Processes, or tasks of Ray, that encode at a time; each loads VAE and text encoder."""
    gpus: float = 0.0
    """Share of a GPU that each task of Ray is given, which else encodes on the CPU. Local processes
    use the GPU where there is one."""
    shard_clips: int = 64
    """Clips, or captions, to a file of the cache; an interrupted run begins unfinished files
    again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.cache is None:
            raise UserError("data.cache is not set: name the folder that the cache is to be in")
        if not 0 <= self.gpus <= 1:
            raise UserError(f"gpus={self.gpus}: must lie in [0, 1]")
        at_least(1, encoders=self.encoders, shard_clips=self.shard_clips)
