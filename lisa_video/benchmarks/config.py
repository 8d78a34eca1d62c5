"""Settings of the benchmarks. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import AlignmentConfig, BackboneConfig, Precision, aligned_steps
from lisa_video.training.config.objective import Schedule

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
    tap: list[str] | str = "down_5"
    """Injection point, or points, whose feature the LISA decoder reads."""
    batch_size: int = 8
    """Clips per step."""
    frames: int = 8
    """Frames per clip."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    attention: AttentionChoice = "auto"
    """Attention kernel, as in training."""
    mixed_precision: Precision = "no"
    """Arithmetic of the networks, as in training."""
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
        at_least(1, batch_size=self.batch_size, frames=self.frames, repeats=self.repeats)
        at_least(0, warm_up=self.warm_up, threads=self.threads)

    @property
    def taps(self) -> list[str]:
        """The tapped injection points."""
        return AlignmentConfig(tap=self.tap).taps


@dataclass(frozen=True)
class EconomyBenchmarkConfig:
    """Time of a LISA training over plain, averaged over a run whose alignment loss is made in some
    steps, of some clips or up to a step only, and the same with a second full forward."""

    step: StepBenchmarkConfig = field(default_factory=StepBenchmarkConfig)
    """The training step; its `json` has no effect."""
    steps: int = 10_000
    """Optimizer steps of the run."""
    every: int = 2
    """alignment.every of the training."""
    fraction: float = 1.0
    """alignment.fraction of the training."""
    schedule: Schedule = "constant"
    """alignment.schedule of the training."""
    until: int | None = None
    """alignment.until of the training."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        if not aligned_steps(self.alignment, self.steps):
            raise UserError(f"every={self.every}: none of {self.steps} steps has an alignment loss")

    @property
    def alignment(self) -> AlignmentConfig:
        """As a training has it."""
        return AlignmentConfig(
            tap=self.step.tap,
            every=self.every,
            fraction=self.fraction,
            schedule=self.schedule,
            until=self.until,
        )


@dataclass(frozen=True)
class AttentionBenchmarkConfig:
    """Time and memory of a plain training step by attention kernel, frames and size."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(EMBEDDED_BACKBONE))
    """The frozen main network."""
    kernels: list[AttentionChoice] = field(default_factory=list)
    """Kernels to compare; empty: all that run on the device."""
    frames: list[int] = field(default_factory=lambda: [8, 16])
    """Frames per clip, each with every size."""
    sizes: list[tuple[int, int]] = field(default_factory=lambda: [(64, 64), (128, 128)])
    """Widths and heights in pixels."""
    batch_size: int = 1
    """Clips per step."""
    mixed_precision: Precision = "no"
    """Arithmetic of the networks."""
    repeats: int = 5
    """Timed steps of each kernel; the kernels take turns."""
    warm_up: int = 1
    """Steps of each kernel before that, untimed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device."""
    threads: int = 0
    """Torch threads on the CPU; 0 takes torch's default."""
    seed: int = 0
    """Seed of weights and inputs."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        if "auto" in self.kernels:
            raise UserError("kernels: auto is no kernel; name kernels, or leave the list empty")
        if not self.frames or not self.sizes:
            raise UserError("frames and sizes must not be empty")
        at_least(1, batch_size=self.batch_size, repeats=self.repeats)
        at_least(0, warm_up=self.warm_up, threads=self.threads)


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


@dataclass(frozen=True)
class FvdBenchmarkConfig:
    """Clips per second of FVD's network, and the time of a Fréchet distance against scipy's matrix
    root."""

    network: str = "i3d"
    """i3d (fetched once), or a .safetensors file of its weights."""
    batch_size: int = 1
    """Clips per pass."""
    frames: int = 16
    """Frames per clip."""
    repeats: int = 5
    """Timed passes of each variant; the variants take turns."""
    warm_up: int = 1
    """Passes of each variant before that, untimed."""
    value_clips: int = 8
    """Clips on each side for what bfloat16 does to the value."""
    samples: list[int] = field(default_factory=lambda: [256, 2048])
    """Clips on each side of the Fréchet distance."""
    dimensions: list[int] = field(default_factory=lambda: [400, 1408])
    """Features per clip: of I3D, and of VideoMAE's largest model."""
    frechet_repeats: int = 3
    """Timed runs of each distance; the matrix root, which is slow, is run once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of the network; auto: CUDA where there is a device."""
    threads: int = 0
    """Torch threads on the CPU; 0 takes torch's default."""
    seed: int = 0
    """Of clips and features."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(
            1,
            batch_size=self.batch_size,
            repeats=self.repeats,
            frechet_repeats=self.frechet_repeats,
        )
        if self.frames < 9:
            raise UserError(f"frames={self.frames}: I3D needs at least 9")
        if self.value_clips < 2 or min([*self.samples, *self.dimensions], default=2) < 2:
            raise UserError("value_clips, samples and dimensions must be at least 2")
        at_least(0, warm_up=self.warm_up, threads=self.threads)


@dataclass(frozen=True)
class MemoryBenchmarkConfig:
    """Peak memory of LISA training steps, estimated and measured, and that of a naive training
    against one with everything on; on the CPU."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(EMBEDDED_BACKBONE))
    """The frozen main network."""
    tap: str = "down_3"
    """Injection point whose feature the LISA decoder reads."""
    sizes: list[tuple[int, int, int]] = field(
        default_factory=lambda: [(8, 64, 2), (8, 64, 8), (16, 128, 2)]
    )
    """Frames, side in pixels and clips of trainings; the last is trained naively as well."""
    threads: int = 0
    """Torch threads; 0 takes torch's default."""
    seed: int = 0
    """Of clips and weights."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(0, threads=self.threads)
        if not self.sizes or min(map(min, self.sizes)) < 1:
            raise UserError(f"sizes={self.sizes}: frames, side and clips must be at least 1")
