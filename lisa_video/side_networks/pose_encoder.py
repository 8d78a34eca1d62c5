"""Drawn poses to features at the resolution of the side network.

Shapes: B batch, F video frames, T latent frames, H W pixels, h w cells, N images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from lisa_video.side_networks.base import PoseInit, zeroed

POSE_CHANNELS = (16, 32, 64, 96, 128, 192, 256)  # after each halving; ControlNet has similar ones


class PoseEncoder(nn.Module):
    """Drawn poses (N, 3, H, W) in [0, 1] -> (N, out_channels, h, w), by stride-2 convolutions.

    `widths` are the channels at full resolution and after each halving. `init` "zero" is that of
    ControlNet: torch's own, which shrinks the signal in every layer, and a last convolution of
    zeros, so poses come in gradually. With "normal" (Kaiming et al., arXiv:1502.01852) the
    signal keeps its size and the side network sees poses from the first step. Either way the
    zero projections keep the first prediction that of the backbone.
    """

    gradient_checkpointing = False
    """Recompute activations in the backward pass; diffusers switches it."""

    def __init__(self, out_channels: int, widths: Sequence[int], init: PoseInit) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        _initialise((self.conv_in, *self.blocks), self.conv_out, init, gain=math.sqrt(2))

    def forward(self, frames: Tensor) -> Tensor:
        return _encoded(self, frames)


class VideoPoseEncoder(nn.Module):
    """Drawn poses (B, 3, F, H, W) in [0, 1] -> (B, out_channels, T, h, w), causal in time.

    The spatial halvings are those of `PoseEncoder`; the last `time_halvings` of them halve the
    frame rate as well. Time is padded at the front alone, as in the VAEs of Wan and CogVideoX:
    F = 1 + k * 2^time_halvings frames become T = 1 + k, the first of which sees the first frame
    alone, and no frame sees a later one. `init` is that of `PoseEncoder`.
    """

    gradient_checkpointing = False
    """As in `PoseEncoder`."""

    def __init__(
        self, out_channels: int, widths: Sequence[int], time_halvings: int, init: PoseInit
    ) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        assert 0 <= time_halvings <= len(steps), (time_halvings, widths)
        self.conv_in = SpatialConv3d(3, widths[0])
        self.blocks = nn.ModuleList()
        for step, (narrow, wide) in enumerate(steps):
            self.blocks.append(SpatialConv3d(narrow, narrow))
            stride = 2 if step >= len(steps) - time_halvings else 1
            self.blocks.append(CausalConv3d(narrow, wide, time_stride=stride))
        self.conv_out = SpatialConv3d(widths[-1], out_channels)
        # SiLU halves the faint signal of thin lines, and there are more layers than on the way to
        # latent cells: with Kaiming's gain for ReLU, poses would be 3 % of the tokens they join.
        _initialise((self.conv_in, *self.blocks), self.conv_out, init, gain=2.0)

    def forward(self, frames: Tensor) -> Tensor:
        return _encoded(self, frames)


class SpatialConv3d(nn.Conv3d):
    """3x3 in space, frame by frame: run on pictures, which takes a quarter of the time on a CPU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        pictures = rearrange(frames, "b c f h w -> (b f) c h w")
        convolved = functional.conv2d(pictures, self.weight[:, :, 0], self.bias, padding=1)
        return rearrange(convolved, "(b f) c h w -> b c f h w", b=len(frames))


class CausalConv3d(nn.Conv3d):
    """3x3x3, stride 2 in space and `time_stride` in time; the first frame stands for those before."""

    def __init__(self, channels_in: int, channels_out: int, time_stride: int) -> None:
        super().__init__(
            channels_in, channels_out, 3, stride=(time_stride, 2, 2), padding=(0, 1, 1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        padded = functional.pad(
            rearrange(frames, "b c f h w -> b c f (h w)"), (0, 0, 2, 0), mode="replicate"
        )
        return super().forward(rearrange(padded, "b c f (h w) -> b c f h w", h=frames.shape[-2]))


def pose_widths(halvings: int) -> tuple[int, ...]:
    """Channels of a pose encoder with so many stride-2 steps from pixels to its output."""
    widths = POSE_CHANNELS[: halvings + 1]
    assert len(widths) == halvings + 1, halvings
    return widths


def _encoded(encoder: PoseEncoder | VideoPoseEncoder, frames: Tensor) -> Tensor:
    """Run the layers; where they are checkpointed, only what each halving gives is kept."""
    blocks = list(encoder.blocks)
    stages = [blocks[first : first + 2] for first in range(0, len(blocks), 2)] or [[]]
    stages[0] = [encoder.conv_in, *stages[0]]
    hidden = frames
    for stage in stages:
        if torch.is_grad_enabled() and encoder.gradient_checkpointing:
            checkpointed: Any = encoder._gradient_checkpointing_func
            hidden = checkpointed(_activated, hidden, stage)
        else:
            hidden = _activated(hidden, stage)
    encoded: Tensor = encoder.conv_out(hidden)
    return encoded


def _activated(hidden: Tensor, convs: Sequence[nn.Module]) -> Tensor:
    for conv in convs:
        hidden = functional.silu(conv(hidden))
    return hidden


def _initialise(
    hidden: Iterable[nn.Module], last: nn.Module, init: PoseInit, *, gain: float
) -> None:
    if init == "zero":
        zeroed(last)
        return
    for conv in (*hidden, last):
        assert isinstance(conv, (nn.Conv2d, nn.Conv3d)) and conv.bias is not None
        nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
        nn.init.zeros_(conv.bias)
