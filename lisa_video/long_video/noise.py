"""Noise for a long video: FreeNoise (Qiu et al. 2023, arXiv:2310.15169, sec. 3.2).

Shapes: B batch, C latent channels, T latent frames, h w latent cells.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rescheduled(
    noise: Tensor, window: int, stride: int, generator: torch.Generator | None
) -> Tensor:
    """Noise (B, C, T, h, w) in which each run of `stride` frames after the first `window` is the
    run one window earlier, shuffled.

    Each frame for itself stays as it was distributed. The order comes from `generator`.
    """
    noise = noise.clone()
    frames = noise.shape[2]
    device = None if generator is None else generator.device
    for start in range(window, frames, stride):
        order = torch.randperm(stride, generator=generator, device=device).to(noise.device)
        length = min(stride, frames - start)
        noise[:, :, start : start + length] = noise[:, :, start - window + order[:length]]
    return noise
