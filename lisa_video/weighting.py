"""Weights of the squared error by timestep, so that no noise level drowns the others.

`a` and `s` are the coefficients of `x_t = a x_0 + s n` (see `predictions`): tensors of any shape, not
below 0. Results have that shape. SNR is a^2 / s^2.
"""

import torch
from torch import Tensor
from typing_extensions import assert_never

from lisa_video.predictions import PredictionType


def min_snr_weight(kind: PredictionType, a: Tensor, s: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) on the squared error of x_0, as a weight of that of the regression target.

    Source: Hang et al., arXiv:2303.09556, sec. 3.4: min(SNR, gamma) for sample, over SNR for epsilon,
    over SNR + 1 for v_prediction. For flow, which they do not treat, the same is carried over:
    x_0 = x_t - s v, so that the squared error of x_0 is s^2 times that of v. Written so that neither
    pure noise (a = 0) nor none (s = 0) needs a limit.
    """
    match kind:
        case "epsilon":
            return (gamma * s**2 / a**2).clamp(max=1)
        case "v_prediction" | "flow":
            return torch.minimum(a**2, gamma * s**2)
        case "sample":
            return (a**2 / s**2).clamp(max=gamma)
        case _:
            assert_never(kind)


def score_weight(kind: PredictionType, a: Tensor, s: Tensor) -> Tensor:
    """s^2 k^2: weighs the squared error of the regression target as that of s times the score.

    Source: the weight of denoising score matching, the noise variance, Song & Ermon 2019
    (arXiv:1907.05600) eq. 6, with the slope k of `predictions.score_factor`. It is the squared error
    in epsilon, and for sample the SNR, which grows without bound towards clean latents.
    """
    match kind:
        case "epsilon":
            return torch.ones_like(s)
        case "v_prediction" | "flow":
            return a**2
        case "sample":
            return a**2 / s**2
        case _:
            assert_never(kind)
