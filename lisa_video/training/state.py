"""A run at one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.checkpoint import Networks


@dataclass(frozen=True)
class TrainState:
    """A run at one step, for `on_step` and as the result; its networks live on and change."""

    step: int
    """Optimizer steps done."""
    backbone: VideoBackbone
    networks: Networks


OnStep = Callable[[int, TrainState], object]
