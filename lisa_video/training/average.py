"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch

from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.split_tensors import own_parts


def frozen_copy(network: SideNetwork) -> SideNetwork:
    """A copy in eval mode that asks for no gradient."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: SideNetwork, network: SideNetwork, decay: float, step: int) -> None:
    """Let `average` take in the weights of `network` after optimizer step `step`, from 1.

    Early steps decay faster, by (1 + step) / (10 + step), so that the start is soon forgotten
    (as in the averages of TensorFlow and diffusers).
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(own_parts(average), own_parts(network), 1 - decay)
