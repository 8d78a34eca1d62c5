"""From frames to what a network sees: the resizings that published FVD codes differ in.

Shapes: B batch, T frames, H W pixels, S side of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

Resize = Literal["bilinear", "bilinear_tf1", "short_side_crop", "bicubic"]


def bilinear(frames: Tensor, side: int) -> Tensor:
    """Stretched to a square with the centres of pixels aligned, as StyleGAN-V's TorchScript does."""
    size = (side, side)
    return functional.interpolate(frames, size, mode="bilinear", align_corners=False)


def bilinear_tf1(frames: Tensor, side: int) -> Tensor:
    """Stretched to a square as `tf.image.resize_bilinear` of TensorFlow 1 does: the first pixels'
    corners are aligned, so that pixel i comes from i H / S, without smoothing when it shrinks."""
    for axis in (-2, -1):
        size = frames.shape[axis]
        place = torch.arange(side, dtype=torch.float32, device=frames.device) * (size / side)
        low = place.floor().long()
        high = (low + 1).clamp(max=size - 1)
        share = (place - low).reshape(-1, *[1] * (-1 - axis))
        below, above = frames.index_select(axis, low), frames.index_select(axis, high)
        frames = below + (above - below) * share
    return frames


def short_side_crop(frames: Tensor, side: int) -> Tensor:
    """Shorter side to S, bilinear, then the middle: VideoGPT's, and JunyaoHu's after it."""
    height, width = frames.shape[-2:]
    scale = side / min(height, width)
    size = (side, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), side)
    resized = functional.interpolate(frames, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return resized[..., top : top + side, left : left + side]


def bicubic(frames: Tensor, side: int) -> Tensor:
    """Stretched to a square by Pillow's smoothing bicubic, as clean-fid and DisCo do."""
    resized = functional.interpolate(
        frames, (side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 255)


RESIZES: Mapping[Resize, Callable[[Tensor, int], Tensor]] = {
    "bilinear": bilinear,
    "bilinear_tf1": bilinear_tf1,
    "short_side_crop": short_side_crop,
    "bicubic": bicubic,
}
"""Each takes float32 (N, 3, H, W) in [0, 255] and a side S, and gives (N, 3, S, S) in that range."""


def network_input(clips: Tensor, resize: Resize, side: int) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B, 3, T, S, S) in [-1, 1]."""
    assert clips.dtype == torch.uint8 and clips.ndim == 5 and clips.shape[-1] == 3, clips.shape
    frames = rearrange(clips, "b t h w c -> (b t) c h w").float()
    resized = RESIZES[resize](frames, side) / 127.5 - 1
    return rearrange(resized, "(b t) c h w -> b c t h w", b=len(clips))
