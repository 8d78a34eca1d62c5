"""Settings of the generation job. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig


@dataclass(frozen=True)
class DrivingConfig:
    """The motion to follow: a pose file or a video, and which part of it."""

    poses: Path | None = None
    """Pose file (.npz)."""
    video: Path | None = None
    """Driving video, in place of a pose file."""
    detector: str = "blazepose"
    """Pose detector for the video; an unknown name lists the known ones."""
    start: int = 0
    """First frame, counted from 0."""
    frames: int = 16
    """Frames to generate; 1 + 4k for Wan and CogVideoX."""
    fps: float | None = None
    """Frames per second of the result, for which source frames are skipped or repeated; null takes
    every source frame at the source's rate."""
    framing: Literal["people", "fit", "stretch"] = "fit"
    """fit: the whole source picture; people: a window around the people in it; both keep
    proportions, stretch does not."""

    def __post_init__(self) -> None:
        if (self.poses is None) == (self.video is None):
            raise UserError("driving: give either driving.poses or driving.video")
        if self.start < 0:
            raise UserError(f"driving.start={self.start}: frames are counted from 0")
        if self.frames < 1:
            raise UserError(f"driving.frames={self.frames}: must be at least 1")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UserError(f"driving.fps={self.fps}: must lie between 0 and 1000")


@dataclass(frozen=True)
class SamplingConfig:
    """How noise becomes video."""

    steps: int = 25
    """Denoising steps."""
    guidance_scale: float = 3.0
    """Classifier-free guidance by the prompt; 1 is none."""
    negative_prompt: str = ""
    """What guidance steers away from."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling.steps={self.steps}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"sampling.seed={self.seed}: must not be negative")


@dataclass(frozen=True)
class ControlConfig:
    """How strongly, and when, the poses control."""

    scale: float = 1.0
    """Factor of what the side network adds; 0 is the backbone alone."""
    start: float = 0.0
    """Share of the steps after which control begins."""
    end: float = 1.0
    """Share of the steps after which control ends."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise UserError(
                f"control.start={self.start}, control.end={self.end}: shares of the steps, "
                "0 <= start <= end <= 1"
            )


@dataclass(frozen=True)
class GenerateConfig:
    """Generate a video that follows given poses and a prompt."""

    backbone: BackboneConfig
    side_network: str
    """Folder of a side network trained on this backbone."""
    driving: DrivingConfig
    prompt: str
    """What the video shows."""
    output: Path
    """The video (.mp4); must not exist. Its settings are kept beside it (.yaml)."""
    lora: Path | None = None
    """Folder of adapters for the main network, trained together with the side network; they serve
    the steps in which poses control."""
    poses_output: Path | None = None
    """Pose file for the poses as the video was asked to follow them, as evaluate.py wants them."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; null takes the size that the backbone was trained at, where it
    says so (Wan does not)."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the networks."""
    attention: AttentionChoice = "auto"
    """Attention kernel of backbone and side network, as in training; sage serves here, too."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UserError("prompt is empty: say what the video shows")
        if self.output.suffix != ".mp4":
            raise UserError(f"output={self.output}: the name of a video has to end in .mp4")
