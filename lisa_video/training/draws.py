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
from lisa_video.predictions import logit_normal_time, resolution_shift, shifted_time
from lisa_video.training.config import TimestepConfig, TrainConfig


class Purpose(IntEnum):
    """One stream of random numbers each, so that a further draw in one shifts no other."""

    NOISE = 1
    TIMESTEP = 2
    DROPOUT = 3
    DECODER = 4
    MODULES = 5
    PROBE = 6
    ADAPTERS = 7
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
    seed, shift = config.seed, clip_shift(config.timesteps, backbone, latent_shape)
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
        timesteps=backbone.noise.timesteps(
            torch.cat(
                [
                    training_time(config.timesteps, shift, stream(seed, Purpose.TIMESTEP, each))
                    for each in positions
                ]
            )
        ),
        text_dropped=dropout[:, 0] < config.text_dropout,
        pose_dropped=dropout[:, 1] < config.pose_dropout,
    )


def training_time(settings: TimestepConfig, shift: float, generator: torch.Generator) -> Tensor:
    """One time in [0, 1], 1 all noise, as training draws it: float64 (1,)."""
    if settings.sampling == "uniform":
        time = torch.rand(1, generator=generator, dtype=torch.float64)
    else:
        normal = torch.randn(1, generator=generator, dtype=torch.float64)
        time = logit_normal_time(normal, settings.logit_mean, settings.logit_std)
    return shifted_time(time, shift)


def clip_shift(
    settings: TimestepConfig, backbone: VideoBackbone, latent_shape: torch.Size
) -> float:
    """The shift of clips whose latents are `latent_shape`, (C, T, h, w)."""
    if settings.shift_at is None:
        return settings.shift
    frames, width, height = settings.shift_at
    factor = backbone.vae_scale_factor
    reference = backbone.latent_frames(frames) * (width // factor) * (height // factor)
    return resolution_shift(settings.shift, latent_shape[1:].numel(), max(1, reference))
