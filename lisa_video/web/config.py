"""Settings of the web demo. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.config_checks import at_least, positive
from lisa_video.errors import UserError
from lisa_video.generation_config import listed_folders
from lisa_video.training.config import BackboneConfig

BACKBONE_ALONE = "backbone alone"
"""Label of the choice that every model has beside its checkpoints."""


@dataclass(frozen=True)
class ModelConfig:
    """A backbone and the checkpoints that can be chosen for it."""

    backbone: BackboneConfig
    checkpoints: Mapping[str, str | list[str]]
    """Label -> folder of a side network, or of several that act together, as in generation."""
    prompt: str = ""
    """What the page proposes."""
    size: tuple[int, int] | None = None
    """Width and height of the frames in pixels; null takes the backbone's own."""
    frames: int = 16
    """Frames that the page proposes."""
    steps: int = 25
    """Denoising steps that the page proposes."""
    guidance_scale: float = 3.0
    """Guidance that the page proposes."""
    scorer: str | None = None
    """Pose detector that knows what this backbone draws, for PCK; null offers no scores."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the networks."""

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise UserError("models: each needs at least one checkpoint, a label and a folder")
        if BACKBONE_ALONE in self.checkpoints:
            raise UserError(f"models: '{BACKBONE_ALONE}' is a choice already, name it otherwise")
        at_least(1, "models", frames=self.frames, steps=self.steps)

    @property
    def folders(self) -> list[str]:
        """Of all side networks."""
        return [folder for each in self.checkpoints.values() for folder in listed_folders(each)]


@dataclass(frozen=True)
class LimitsConfig:
    """What one visitor may ask for."""

    upload_mb: float = 50.0
    """Size of an uploaded file, in megabytes."""
    seconds: float = 60.0
    """Length of a driver."""
    pixels: int = 1920 * 1088
    """Of a driver's picture."""
    frames: int = 128
    """Frames of a result."""
    steps: int = 50
    """Denoising steps."""
    waiting: int = 8
    """Visitors in the queue; one is served at a time, more are sent away."""
    results: int = 16
    """Results kept; older ones are removed."""

    def __post_init__(self) -> None:
        positive("limits", upload_mb=self.upload_mb, seconds=self.seconds)
        at_least(
            1,
            "limits",
            pixels=self.pixels,
            frames=self.frames,
            steps=self.steps,
            waiting=self.waiting,
            results=self.results,
        )


@dataclass(frozen=True)
class WebConfig:
    """Serve the web demo on this machine."""

    models: Mapping[str, ModelConfig]
    """Name on the page -> backbone and checkpoints."""
    samples: Mapping[str, Path] = field(default_factory=dict)
    """Name on the page -> driving video or pose file that needs no upload."""
    detectors: tuple[str, ...] = ("blazepose", "figures")
    """Pose detectors offered for driving videos; the first one is proposed."""
    host: str = "127.0.0.1"
    """Address to listen at. Another than this machine's own lets everybody in who can reach it:
    there is no password."""
    port: int = 7860
    """Port to listen at; 0 takes a free one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device."""
    attention: AttentionChoice = "auto"
    """Attention kernel, as in generation."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        if not self.models:
            raise UserError("models: name at least one")
        if not self.detectors:
            raise UserError("detectors: name at least one")
        if not 0 <= self.port <= 65535:
            raise UserError(f"port={self.port}: must lie between 0 and 65535")
        for name, model in self.models.items():
            if model.frames > self.limits.frames or model.steps > self.limits.steps:
                raise UserError(
                    f"models '{name}': proposes more than limits.frames or limits.steps"
                )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def warning(self) -> str | None:
        """What the terminal says of an address that others can reach."""
        if self.is_local:
            return None
        return (
            f"warning: host={self.host}: everybody who can reach this machine can use the page, "
            "there is no password"
        )
