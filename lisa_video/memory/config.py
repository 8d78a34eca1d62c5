"""Settings of a training job with its estimate of memory. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig

Sharding = Literal["none", "fsdp2", "fsdp2_gathered"]

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_UNITS |= {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True)
class TrainJobConfig(TrainConfig):
    """Train a pose side network on a frozen video backbone."""

    estimate: bool = False
    """Print what memory this training needs, per device, and whether it fits; train nothing. No
    weights, clips or devices are needed."""
    estimate_memory: str | None = None
    """Memory of a device, such as 24GiB; null: that of the device found here."""
    estimate_device: Literal["auto", "cuda", "cpu"] = "auto"
    """What trains; auto: cuda, unless there is none here and `estimate_memory` is not given."""
    estimate_processes: int = 1
    """Devices of the run."""
    estimate_sharding: Sharding = "none"
    """none: each device holds everything, as with configs/accelerate/ddp.yaml; the others as with the
    configs of these names there."""
    estimate_published: Path = Path("configs/published")
    """Folder of published configurations, by hub name; those that it has are not downloaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, estimate_processes=self.estimate_processes)
        if self.estimate_memory is not None:
            parsed_bytes(self.estimate_memory)

    @property
    def training(self) -> TrainConfig:
        """The settings of the training alone."""
        return TrainConfig(
            **{field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        )


def parsed_bytes(text: str) -> int:
    """24GiB, 24 GB, 512MiB or a number of bytes; UserError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise UserError(f"estimate_memory={text}: give a size such as 24GiB")
    return int(float(match[1]) * _UNITS[match[2]])
