"""When and how strongly side networks control.

Shapes: B batch, C latent channels, F video frames, T latent frames, h w latent cells, k runs of the
batch, L tokens of text, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.injection import SideResiduals
from lisa_video.pipeline.poses import EncodedPoses
from lisa_video.side_networks.base import SideNetwork

ControlScale = float | Sequence[float]
"""Factor of the residuals, one for all frames or one for each video frame."""


@dataclass(frozen=True)
class Control:
    """One side network, the poses it sees, and how strongly it controls."""

    side_network: SideNetwork
    poses: EncodedPoses
    scales: Tensor
    """(T,)."""

    def residuals(
        self,
        backbone: VideoBackbone,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        window: range,
    ) -> SideResiduals | None:
        """For a window of latents (B, C, t, h, w) and texts (k*B, L, D), in the dtype of the latents;
        None where all are 0."""
        scales = self.scales[window.start : window.stop]
        if not scales.any():
            return None
        side = backbone.side_output(
            self.side_network,
            noisy.to(self._dtype),
            timesteps,
            text,
            self.poses.window(window.start, window.stop),
        )
        equal = bool((scales == scales[0]).all())
        residuals = side.residuals.scaled(scales[0].item() if equal else scales.to(noisy.device))
        return residuals.to(noisy.dtype)

    @cached_property
    def _dtype(self) -> torch.dtype:
        """Of the side network: diffusers looks through all modules for it."""
        return self.side_network.dtype


@dataclass(frozen=True)
class ControlPlan:
    """All side networks of a generation, and the steps at which they control."""

    controls: Sequence[Control]
    start: float
    """Share of the steps after which control begins."""
    end: float
    """Share of the steps after which control ends."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise UserError(
                f"control_start={self.start}, control_end={self.end}: shares of the steps, "
                "0 <= start <= end <= 1"
            )

    def acts(self, step: int, steps: int) -> bool:
        """Whether there is control at step number `step` of `steps`."""
        return self.start <= step / steps and (step + 1) / steps <= self.end

    def residuals(
        self,
        backbone: VideoBackbone,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        window: range,
    ) -> SideResiduals | None:
        """The sum over the side networks, as `Control.residuals`."""
        total = None
        for control in self.controls:
            own = control.residuals(backbone, noisy, timesteps, text, window)
            if own is not None:
                total = own if total is None else total.plus(own)
        return total


def frame_scales(backbone: VideoBackbone, scale: ControlScale, frames: int, padded: int) -> Tensor:
    """The control scale of each latent frame (T,) of a video of `frames` frames.

    `padded` are the frames that it is generated with; those added have the last one's scale.
    Raises UserError unless there is one scale, or one for each frame.
    """
    values = [float(scale)] * frames if isinstance(scale, (int, float)) else list(map(float, scale))
    if len(values) != frames:
        raise UserError(f"control_scale: {len(values)} values for {frames} frames")
    values += values[-1:] * (padded - frames)
    scales = torch.tensor(values, dtype=torch.float64)
    return backbone.latent_frame_means(scales[None])[0].float()
