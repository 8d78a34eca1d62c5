"""The moving average of the trained weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import EmaConfig
from lisa_video.training.split_tensors import gathered, is_partitioned, own_parts


def frozen_copy(network: SideNetwork) -> SideNetwork:
    """A copy in eval mode that asks for no gradient."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def update_averages(networks: Networks, config: EmaConfig, step: int) -> None:
    """Let the averages that are kept take in the weights after optimizer step `step`, from 1."""
    if step % config.every:
        return
    decay = average_decay(config, step)
    if networks.average is not None and is_partitioned(networks.side_network):
        # The average is whole: one weight after the other, lest all are gathered at once.
        pairs = zip(networks.average.parameters(), networks.side_network.parameters(), strict=True)
        for average, weight in pairs:
            with gathered([weight]):
                update_average([average], [weight], decay)
    elif networks.average is not None:
        update_average(own_parts(networks.average), own_parts(networks.side_network), decay)
    if networks.lora is not None and networks.lora_average is not None:
        weights = networks.lora.tensors.values()
        update_average(networks.lora_average.tensors.values(), weights, decay)


@torch.no_grad()
def update_average(average: Iterable[Tensor], weights: Iterable[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * weights, in place."""
    torch._foreach_lerp_(list(average), list(weights), 1 - decay)


def average_decay(config: EmaConfig, step: int) -> float:
    """What is left of the average at step `step`, from 1, since `config.every` steps before.

    Exponential: `decay` per step, and during the first steps at most (1 + step) / (10 + step), as
    in the averages of TensorFlow and diffusers. Power function: (1 - every / step)^(gamma + 1),
    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models",
    arXiv:2312.02696, section 3.1.
    """
    if config.sigma_rel is not None:
        return float((1 - config.every / step) ** (power_exponent(config.sigma_rel) + 1))
    decay = config.decay
    if config.warmup:
        decay = min(decay, (1 + step) / (10 + step))
    return decay**config.every


def power_exponent(sigma_rel: float) -> float:
    """gamma of the power-function average whose width is this share of the training so far.

    The positive root of sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), as above.
    """
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
