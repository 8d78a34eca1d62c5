"""Settings of the benchmarks. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig

EMBEDDED_BACKBONE = "data/embedded/animatediff/backbone"
REAL_TRAININGS = (
    "animatediff/sd15_lisa",
    "wan/wan21_1_3b_lisa",
    "wan/wan22_ti2v_5b_lisa",
    "cogvideox/cogvideox_2b_lisa",
    "cogvideox/cogvideox_5b_lisa",
)
"""The shipped training configs of released checkpoints."""


@dataclass(frozen=True)
class StepBenchmarkConfig:
    """Time and memory of a training step: plain, LISA with the shared encoder pass, and LISA with a
    second full forward of the backbone."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(EMBEDDED_BACKBONE))
    """The frozen main network."""
    injection: list[str | int] | dict[str, int] | Literal["all"] = "all"
    """Injection points with a zero projection, as side_network.injection of a training."""
    tap: str = "down_5"
    """Injection point whose feature the LISA decoder reads."""
    batch_size: int = 8
    """Clips per step."""
    frames: int = 8
    """Frames per clip."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    repeats: int = 15
    """Timed steps of each variant; the variants take turns."""
    warm_up: int = 2
    """Steps of each variant before that, untimed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device."""
    threads: int = 0
    """Torch threads on the CPU; 0 takes torch's default."""
    seed: int = 0
    """Seed of weights and inputs."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "frames", "repeats"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("warm_up", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: must not be negative")


@dataclass(frozen=True)
class ParametersBenchmarkConfig:
    """Parameters of trainings, the LISA decoder's share, and the memory before activations."""

    trainings: list[Path] = field(
        default_factory=lambda: [Path("configs") / f"{name}.yaml" for name in REAL_TRAININGS]
    )
    """Training configs, one row each."""
    published: Path = Path("configs/published")
    """Folder of published configurations by hub name; nothing is downloaded."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        if not self.trainings:
            raise UserError("trainings is empty: name training configs")
