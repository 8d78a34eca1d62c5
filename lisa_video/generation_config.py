"""Settings of the generation job. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.driver_config import Person, RetargetConfig
from lisa_video.errors import UserError
from lisa_video.extraction_config import SmoothingConfig
from lisa_video.long_video.settings import PromptFrom, PromptTravel, WindowSettings
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
    frames: int | Literal["all"] = 16
    """Frames to generate; without a window 1 + 4k for Wan, 1 + 8k for CogVideoX. all: as long as the
    source lasts."""
    fps: float | None = None
    """Frames per second of the result, for which source frames are skipped or repeated; null takes
    every source frame at the source's rate."""
    framing: Literal["people", "fit", "stretch"] = "fit"
    """fit: the whole source picture; people: a window around the people in it; both keep
    proportions, stretch does not."""
    person: Person = "only"
    """Whom to follow: only expects one person beside passers-by, all takes everybody, and a number
    one of them, 0 the most prominent (size x confidence x duration)."""
    smoothing: SmoothingConfig = field(
        default_factory=lambda: SmoothingConfig(min_cutoff=0, max_gap=0)
    )
    """Keypoints over time; as they are unless min_cutoff or max_gap is above 0."""
    retarget: RetargetConfig = field(default_factory=RetargetConfig)
    """Limbs, size and place of another person."""

    def __post_init__(self) -> None:
        if (self.poses is None) == (self.video is None):
            raise UserError("driving: give either driving.poses or driving.video")
        if self.start < 0:
            raise UserError(f"driving.start={self.start}: frames are counted from 0")
        if isinstance(self.person, int) and self.person < 0:
            raise UserError(f"driving.person={self.person}: people are counted from 0")
        if self.frames != "all" and self.frames < 1:
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
    scheduler: str | None = None
    """Name of a diffusers scheduler, such as UniPCMultistepScheduler; null: the checkpoint's."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling.steps={self.steps}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"sampling.seed={self.seed}: must not be negative")


@dataclass(frozen=True)
class ControlConfig:
    """How strongly, and when, the poses control."""

    scale: float | list[float] = 1.0
    """Factor of what the side network adds; 0 is the backbone alone. A list has one for each
    frame."""
    start: float = 0.0
    """Share of the steps after which control begins."""
    end: float = 1.0
    """Share of the steps after which control ends."""
    weights: list[float] | None = None
    """Factor of each of several side networks, in their order, beside scale; null: 1 each."""
    share: bool = False
    """Run the side network on the prompt alone, for both halves of guidance: half its cost, and
    slightly another result."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise UserError(
                f"control.start={self.start}, control.end={self.end}: shares of the steps, "
                "0 <= start <= end <= 1"
            )

    def scales(self, networks: int) -> float | list[float] | list[list[float]]:
        """The `control_scale` of a pipeline with this many side networks."""
        if networks == 1:
            return self.scale
        weights = self.weights or [1.0] * networks
        if isinstance(self.scale, list):
            return [[weight * scale for scale in self.scale] for weight in weights]
        return [weight * self.scale for weight in weights]


def listed_folders(folders: str | list[str] | None) -> list[str]:
    """Of one side network, of several, or of none."""
    return [folders] if isinstance(folders, str) else folders or []


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What all jobs share that make clips of a driver."""

    backbone: BackboneConfig
    driving: DrivingConfig
    window: WindowSettings | None = None
    """Windows for a video longer than the backbone takes at once; null makes all frames at once."""
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
    offload: Literal["none", "model", "sequential"] = "none"
    """What waits on the CPU until it is needed, on CUDA: whole models, or layer by layer, which is
    slow and takes least memory."""
    vae_tiling: bool = False
    """Decode large frames tile by tile."""

    def __post_init__(self) -> None:
        if self.offload != "none" and self.device == "cpu":
            raise UserError(f"offload={self.offload}: is for CUDA, and device is cpu")

    def shared(self) -> dict[str, Any]:
        """All of it by name, for a job of the other kind."""
        return {item.name: getattr(self, item.name) for item in fields(ClipsConfig)}


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ClipsConfig):
    """Generate a video that follows given poses and a prompt."""

    side_network: str | list[str]
    """Folder of a side network trained on this backbone, or several, which act together. Each is shown
    what it was trained on: poses, a part of them, or the edges of driving.video."""
    prompt: str
    """What the video shows."""
    output: Path
    """The video (.mp4); must not exist. Its settings are kept beside it (.yaml), and where the
    driver is retargeted what was done with each frame (.driver.json)."""
    lora: Path | None = None
    """Folder of adapters for the main network, trained together with the side network; they serve
    the steps in which poses control."""
    later_prompts: list[PromptFrom] = field(default_factory=list)
    """Prompts that take over from `prompt` at later frames, in their order."""
    prompt_blend: int = 8
    """Frames over which one prompt becomes the next."""
    poses_output: Path | None = None
    """Pose file for the poses as the video was asked to follow them, as evaluate.py wants them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt:
            raise UserError("prompt is empty: say what the video shows")
        if self.output.suffix != ".mp4":
            raise UserError(f"output={self.output}: the name of a video has to end in .mp4")
        if self.later_prompts:
            self.travel()
        if not self.side_networks:
            raise UserError("side_network: give at least one folder")
        weights = self.control.weights
        if weights is not None and len(weights) != len(self.side_networks):
            raise UserError(
                f"control.weights={weights}: give one for each side network, which are "
                f"{len(self.side_networks)}"
            )

    @property
    def side_networks(self) -> list[str]:
        """All folders."""
        return listed_folders(self.side_network)

    def travel(self) -> PromptTravel:
        """All prompts, by the frames at which they start."""
        first = PromptFrom(0, self.prompt)
        return PromptTravel((first, *self.later_prompts), self.prompt_blend)
