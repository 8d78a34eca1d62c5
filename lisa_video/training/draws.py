"""Everything random in a training step, drawn per clip.

Each clip that training sees has a position: the number of clips before it, over all steps,
accumulated passes and processes. Its draws depend on (seed, position) alone. So they are the same
for both objectives, after a resume, and however a step's clips are spread over passes and
processes.

Shapes: B batch, T latent frames, C latent channels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.config import TrainConfig


class Purpose(IntEnum):
    """One stream of random numbers each, so that a further draw in one shifts no other."""

    NOISE = 1
    TIMESTEP = 2
    DROPOUT = 3
    DECODER = 4
    MODULES = 5
    PROBE = 6
    READING = 40


@dataclass(frozen=True)
class Draws:
    """What was drawn for a batch; tensors on the CPU, whatever trains."""

    noise: Tensor
    """float32 (B, C, T, h, w)."""
    timesteps: Tensor
    """(B,): long, or float32 where the prediction type is flow."""
    text_dropped: Tensor
    """Bool (B,): the caption is withheld."""
    pose_dropped: Tensor
    """Bool (B,): the poses are withheld."""


def stream_seed(seed: int, purpose: Purpose, position: int = 0) -> int:
    """A seed of 64 bits that differs wherever an argument does."""
    words = np.random.SeedSequence([seed, purpose, position]).generate_state(1, np.uint64)
    return int(words[0])


def stream(seed: int, purpose: Purpose, position: int = 0) -> torch.Generator:
    """A fresh CPU generator of `stream_seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, position))


def draw(
    config: TrainConfig,
    backbone: VideoBackbone,
    positions: Sequence[int],
    latent_shape: torch.Size,
) -> Draws:
    """Noise, timesteps and dropout for the clips at `positions`; `latent_shape` is (C, T, h, w)."""
    seed = config.seed
    dropout = torch.stack(
        [torch.rand(2, generator=stream(seed, Purpose.DROPOUT, each)) for each in positions]
    )
    return Draws(
        noise=torch.stack(
            [
                torch.randn(latent_shape, generator=stream(seed, Purpose.NOISE, each))
                for each in positions
            ]
        ),
        timesteps=torch.cat(
            [
                backbone.sample_timesteps(
                    1, stream(seed, Purpose.TIMESTEP, each), config.timesteps.shift
                )
                for each in positions
            ]
        ).cpu(),
        text_dropped=dropout[:, 0] < config.text_dropout,
        pose_dropped=dropout[:, 1] < config.pose_dropout,
    )
