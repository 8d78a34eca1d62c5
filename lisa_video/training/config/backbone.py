"""The frozen main network of a run."""

from __future__ import annotations

from dataclasses import dataclass

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen main network."""

    path: str
    """Folder or hub name of a diffusers checkpoint."""
    kind: str = "animatediff"
    """Entry of the table of backbones: animatediff, wan or cogvideox."""
    motion_adapter: str | None = None
    """AnimateDiff: folder or hub name of the motion adapter, where `path` is Stable Diffusion's."""
    beta_schedule: str | None = None
    """AnimateDiff: replaces the scheduler's; released motion adapters were trained with "linear"."""
    text_tokens: int | None = None
    """Wan, CogVideoX: length that prompts are padded to; null: as diffusers pads (512, 226)."""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("backbone.path is empty: give a folder or a hub name")
        if self.text_tokens is not None:
            at_least(1, "backbone", text_tokens=self.text_tokens)
