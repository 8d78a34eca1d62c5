"""A run at one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.checkpoint import Networks


@dataclass(frozen=True)
class TrainState:
    """A run at one step, for `on_step` and as the result; its networks live on and change.

    During `on_step` the backbone has the adapters that belong to `networks.finished`; afterwards
    those in training, and `networks.as_finished` swaps them.
    """

    step: int
    """Optimizer steps done."""
    backbone: VideoBackbone
    networks: Networks


OnStep = Callable[[int, TrainState], object]
