"""Settings of the job that packs a dataset into tar shards. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig


@dataclass(frozen=True)
class PackConfig(TrainConfig):
    """The settings of the training that will read the shards, and how the work is spread.

    Where they name a cache, its encodings are packed, and else the videos.
    """

    pack_to: str = ""
    """Folder or URL of the packed set, such as s3://bucket/set; must hold none yet."""
    clips_per_shard: int = 256
    """Clips to a tar file. Training needs at least as many files as it has processes."""
    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: a Ray cluster, whose machines see the same folders."""
    packers: int = 1
    """Processes, or tasks of Ray, that pack at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pack_to:
            raise UserError("pack_to is not set: name the folder or URL of the packed set")
        if self.data.shards is not None:
            raise UserError("data.shards: what is packed already is not packed again")
        if self.probe.every and self.data.validation_split == self.data.split:
            raise UserError(
                f"data.validation_split={self.data.split}: that is the split of training, whose "
                "clips are shuffled when they are packed; name another, or set probe.every to 0"
            )
        at_least(1, clips_per_shard=self.clips_per_shard, packers=self.packers)
