"""Settings of the benchmarks of generation. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.benchmarks.config import EMBEDDED_BACKBONE
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.long_video.settings import WindowSettings
from lisa_video.training.config import BackboneConfig

EMBEDDED_SIDE_NETWORK = "data/embedded/animatediff/side_network"


@dataclass(frozen=True)
class GenerationBenchmarkConfig:
    """What control costs per denoising step, against the backbone alone."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(EMBEDDED_BACKBONE))
    """The frozen main network."""
    side_network: str | None = EMBEDDED_SIDE_NETWORK
    """Folder of a side network of this backbone; null makes an untrained one, which costs as much."""
    injection: list[str | int] | dict[str, int] | Literal["all"] = "all"
    """Injection points of an untrained one."""
    frames: int = 16
    """Frames of the clip."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    guidance_scale: float = 3.0
    """Classifier-free guidance; at most 1 is none."""
    steps: int = 24
    """Denoising steps of a generation."""
    target: float = 45.0
    """Percent that control may cost; half of it with control in the first half of the steps."""
    attention: AttentionChoice = "auto"
    """Attention kernel."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the networks."""
    repeats: int = 5
    """Timed generations of each variant; the variants take turns."""
    warm_up: int = 1
    """Generations of each variant before that, untimed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device."""
    threads: int = 0
    """Torch threads on the CPU; 0 takes torch's default."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(1, frames=self.frames, steps=self.steps, repeats=self.repeats)
        at_least(0, warm_up=self.warm_up, threads=self.threads, target=self.target)


@dataclass(frozen=True)
class LongVideoBenchmarkConfig:
    """Memory, seams and pose adherence of a long video, against what it is made of."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(EMBEDDED_BACKBONE))
    """The frozen main network."""
    side_network: str | None = EMBEDDED_SIDE_NETWORK
    """Folder of a side network of this backbone; null leaves out control, and pose adherence."""
    poses: Path = Path("data/sample/poses/marching.npz")
    """Pose file; played forwards and backwards until there are enough frames."""
    prompt: str = "a tall person in a red shirt and blue trousers marching, grey wall, side view"
    """What the video shows."""
    frames: int = 200
    """Frames of the long video."""
    window: WindowSettings = field(default_factory=WindowSettings)
    """Its windows; the short clips that it is compared with are as long."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    steps: int = 25
    """Denoising steps."""
    guidance_scale: float = 3.0
    """Classifier-free guidance; at most 1 is none."""
    detector: str = "figures"
    """Pose detector that looks at the results."""
    seed: int = 0
    """Of the noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device."""
    threads: int = 0
    """Torch threads on the CPU; 0 takes torch's default."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(0, threads=self.threads, seed=self.seed)
        if self.frames < 2 * self.window.frames:
            raise UserError(
                f"frames={self.frames}: must be at least two windows, {2 * self.window.frames}"
            )
