"""A small keypoint network for the rendered figures: the detector that scores the embedded backbone.

BlazePose is trained on photographs; on the figures it is measured by `pipelines/train_detector.py`, beside this one.

Shape legend: F frames, P = 1 person, K = 18 keypoints, H W pixels, h w heatmap cells (half the input resolution).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from lisa_video.errors import UserError

KEYPOINTS = 18
_STRIDE = 2  # input pixels per heatmap cell
_WINDOW = 2  # cells on each side of the peak that refine it
_BATCH = 64  # frames
_FAINTEST = 0.1  # confidence below which a keypoint counts as not found


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(8, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(8, channels_out)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.silu(self.first_norm(self.first(x)))
        return F.silu(self.second_norm(self.second(hidden)) + self.skip(x))


class FigureKeypointNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Heatmaps and presence of the 18 OpenPose keypoints of one figure.

    Args:
        size: side of the square input in pixels.
        channels: width of the levels at full, 1/2, 1/4 and 1/8 resolution.
    """

    @register_to_config
    def __init__(self, size: int = 64, channels: tuple[int, ...] = (24, 48, 80, 112)) -> None:
        super().__init__()
        first, second, third, last = channels
        self.stem = _Residual(3, first)
        self.down = nn.ModuleList(
            [_Residual(first, second, 2), _Residual(second, third, 2), _Residual(third, last, 2)]
        )
        self.middle = _Residual(last, last)
        self.up = nn.ModuleList([_Residual(last + third, third), _Residual(third + second, second)])
        self.heatmaps = nn.Conv2d(second, KEYPOINTS, 1)
        self.presence = nn.Linear(last, KEYPOINTS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> heatmap logits (B, K, h, w), presence logits (B, K)."""
        levels = [self.stem(pixels)]
        for block in self.down:
            levels.append(block(levels[-1]))
        hidden = self.middle(levels.pop())
        presence = self.presence(hidden.mean((-2, -1)))
        for block in self.up:
            skip = levels.pop()
            hidden = F.interpolate(hidden, size=skip.shape[-2:], mode="nearest")
            hidden = block(torch.cat([hidden, skip], dim=1))
        return self.heatmaps(hidden), presence


def keypoint_loss(logits: Tensor, presence: Tensor, keypoints: Tensor) -> Tensor:
    """Cross entropy to a Gaussian around each visible keypoint, plus that of its presence.

    Args:
        logits: (B, K, h, w) heatmap logits.
        presence: (B, K) logits.
        keypoints: (B, K, 3) in input pixels; confidence 0 is absent.
    """
    height, width = logits.shape[-2:]
    centres_x = (torch.arange(width) + 0.5) * _STRIDE
    centres_y = (torch.arange(height) + 0.5) * _STRIDE
    spread = 0.8 * _STRIDE
    x = -((centres_x - keypoints[..., :1]) ** 2) / (2 * spread**2)
    y = -((centres_y - keypoints[..., 1:2]) ** 2) / (2 * spread**2)
    wanted = rearrange(y[..., :, None] + x[..., None, :], "b k h w -> b k (h w)").softmax(-1)
    entropy = -(wanted * logits.flatten(2).log_softmax(-1)).sum(-1)
    visible = (keypoints[..., 2] > 0).float()
    located = (entropy * visible).sum() / visible.sum().clamp(min=1)
    return located + F.binary_cross_entropy_with_logits(presence, visible)


def decode_keypoints(logits: Tensor, presence: Tensor) -> Tensor:
    """Peaks of the heatmaps, refined by the mass around them.

    Returns:
        (B, K, 3): x, y in input pixels and confidence = presence times the heatmap's mass near the peak.
    """
    height, width = logits.shape[-2:]
    mass = logits.flatten(2).softmax(-1)
    peak = mass.argmax(-1)
    row, column = peak // width, peak % width
    near_y = (torch.arange(height) - row[..., None]).abs() <= _WINDOW
    near_x = (torch.arange(width) - column[..., None]).abs() <= _WINDOW
    local = mass.unflatten(-1, (height, width)) * (near_y[..., :, None] & near_x[..., None, :])
    total = local.sum((-2, -1))
    y = (local.sum(-1) * (torch.arange(height) + 0.5)).sum(-1) / total
    x = (local.sum(-2) * (torch.arange(width) + 0.5)).sum(-1) / total
    confidence = presence.sigmoid() * total
    return torch.stack([x * _STRIDE, y * _STRIDE, confidence], dim=-1)


class FigureDetector:
    """The pose detector of the embedded figures, behind the common detector interface.

    Args:
        folder: folder with the network's config.json and safetensors.

    Raises:
        UserError: the folder holds no such network.
    """

    name = "figures"
    skeleton = "openpose18"

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder}: no keypoint network here (config.json is missing); "
                "train one with pipelines/train_detector.py"
            )
        self.network = FigureKeypointNet.from_pretrained(folder).eval().requires_grad_(False)

    def detect(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (F, H, W, 3) -> float32 (F, 1, 18, 3) in pixels of the frames; all 0 where not found."""
        side = self.network.config.size
        height, width = frames.shape[1:3]
        scale = side / max(height, width)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        square = np.zeros((len(frames), side, side, 3), dtype=np.uint8)
        for index, frame in enumerate(frames):
            square[index, : inner[1], : inner[0]] = cv2.resize(frame, inner, interpolation=method)
        with torch.inference_mode():
            pixels = rearrange(torch.from_numpy(square), "f h w c -> f c h w").float() / 127.5 - 1
            found = torch.cat(
                [decode_keypoints(*self.network(part)) for part in pixels.split(_BATCH)]
            )
        keypoints = found.numpy().astype(np.float32)
        keypoints[..., 0] *= width / inner[0]
        keypoints[..., 1] *= height / inner[1]
        keypoints[keypoints[..., 2] < _FAINTEST] = 0
        return keypoints[:, None]

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) -> float32 (1, 18, 3) of each."""
        remaining = iter(frames)
        while batch := list(islice(remaining, _BATCH)):
            yield from self.detect(np.stack(batch))
