"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch

from lisa_video.side_network import TemporalSideNetwork


class WeightAverage:
    """A frozen copy of a network whose weights follow it with `decay` per step.

    Early steps decay faster, by (1 + step) / (10 + step), so that the random start is soon
    forgotten (as the averages of TensorFlow and diffusers do).
    """

    def __init__(self, network: TemporalSideNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: TemporalSideNetwork, step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own, new = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(own, new, 1 - decay)
