"""I3D (Carreira & Zisserman 2017, arXiv:1705.07750), the network of FVD, in RGB on Kinetics-400.

Layer names and sizes are those of DeepMind's kinetics-i3d `i3d.py`; convolutions and pools pad as
TensorFlow's "SAME" does. Batch normalisation, which is constant here, lies in the convolutions.

Shapes: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 400
SIDE = 224
"""Height and width of the input."""

# Channels of an inception module: 1x1 branch, 1x1 and 3x3 branch, again, 1x1 after the pool.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def minimum_frames(pool_frames: int) -> int:
    """Frames that the network needs with an average pool over `pool_frames` of its last feature,
    which has one frame for every eight."""
    return 8 * (pool_frames - 1) + 1


class I3D(nn.Module):
    """Logits of clips: (B, 3, T, 224, 224) in [-1, 1] -> (B, 400), before the softmax.

    Args:
        pool_frames: frames T' of the average pool (T', 7, 7) before the last layer, 2 in the
            published network. The logits are averaged over the positions that remain.
    """

    def __init__(self, pool_frames: int = 2) -> None:
        super().__init__()
        self.pool_frames = pool_frames
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        channels = 192
        for name, sizes in _MIXED.items():
            self.add_module(name, _Inception(channels, sizes))
            channels = sizes[0] + sizes[2] + sizes[4] + sizes[5]
        self.Logits = nn.Conv3d(channels, CLASSES, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips of at least `minimum_frames(pool_frames)` frames, in the type of the weights."""
        assert clips.shape[1] == 3 and clips.shape[3:] == (SIDE, SIDE), clips.shape
        assert clips.shape[2] >= minimum_frames(self.pool_frames), clips.shape
        feature = _max_pool(self.Conv3d_1a_7x7(clips), (1, 3, 3), (1, 2, 2))
        feature = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(feature))
        feature = _max_pool(feature, (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name == "Mixed_4b":
                feature = _max_pool(feature, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                feature = _max_pool(feature, (2, 2, 2), (2, 2, 2))
            feature = self.get_submodule(name)(feature)
        feature = feature.to(self.Logits.weight.dtype)
        pooled = functional.avg_pool3d(feature, (self.pool_frames, 7, 7), stride=1)
        return rearrange(self.Logits(pooled), "b c t 1 1 -> b c t").mean(-1)

    def to_bfloat16(self) -> None:
        """Keep all layers but the last in bfloat16, in place."""
        for name, layer in self.named_children():
            if name != "Logits":
                layer.to(torch.bfloat16)


class _Unit(nn.Conv3d):
    """Convolution with "SAME" padding, the batch normalisation folded in, and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)

    def forward(self, feature: Tensor) -> Tensor:
        padded = _pad_same(feature, self.kernel_size, self.stride)
        return functional.relu(super().forward(padded), inplace=True)


class _Inception(nn.Module):
    def __init__(self, inputs: int, sizes: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.Branch_0 = nn.ModuleDict({"Conv3d_0a_1x1": _Unit(inputs, sizes[0], 1)})
        self.Branch_1, self.Branch_2 = (
            nn.ModuleDict(
                {"Conv3d_0a_1x1": _Unit(inputs, middle, 1), "Conv3d_0b_3x3": _Unit(middle, last, 3)}
            )
            for middle, last in (sizes[1:3], sizes[3:5])
        )
        self.Branch_3 = nn.ModuleDict({"Conv3d_0b_1x1": _Unit(inputs, sizes[5], 1)})

    def forward(self, feature: Tensor) -> Tensor:
        pooled = _max_pool(feature, (3, 3, 3), (1, 1, 1))
        branches = [self.Branch_0["Conv3d_0a_1x1"](feature)]
        for branch in (self.Branch_1, self.Branch_2):
            branches.append(branch["Conv3d_0b_3x3"](branch["Conv3d_0a_1x1"](feature)))
        branches.append(self.Branch_3["Conv3d_0b_1x1"](pooled))
        return torch.cat(branches, dim=1)


def _max_pool(
    feature: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> Tensor:
    # Zeros pad as well as minus infinity does: all features here come from a ReLU.
    return functional.max_pool3d(_pad_same(feature, kernel, stride), kernel, stride)


def _pad_same(feature: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Pad T, H and W so that each comes out as ceil(size / stride), the larger half at the end."""
    padding: list[int] = []
    for size, width, step in zip(feature.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        padding = [total // 2, total - total // 2, *padding]  # torch names the last axis first
    return functional.pad(feature, padding) if any(padding) else feature
