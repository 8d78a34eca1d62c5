"""Prediction types: what a diffusion backbone regresses, and how to read its output in other units.

Every path is `x_t = a x_0 + s n` with `n ~ N(0, I)`. `a` (signal) and `s` (noise) are tensors that
broadcast against the latents, such as (B, 1, 1, 1, 1) against (B, C, F, h, w). Flow matching is the
path `a = 1 - u`, `s = u`. The conversions rely on the coefficients that each type is trained with:
`a^2 + s^2 = 1` for v_prediction and `a + s = 1` for flow.

Where a formula divides by `a` or `s`, that coefficient must not be 0: epsilon says nothing about
x_0 at `a = 0` (zero terminal SNR), and no score exists at `s = 0`. Results keep the common floating
point type of the arguments.
"""

import math
from typing import Literal, get_args

from torch import Tensor
from typing_extensions import assert_never

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


def shifted_time(uniform: Tensor, shift: float) -> Tensor:
    """shift u / (1 + (shift - 1) u): uniform times u in [0, 1) moved towards high noise (shift > 1).

    Source: Esser et al., arXiv:2403.03206, sec. 5.3.2. Shift 1 changes nothing.
    """
    return shift * uniform / (1 + (shift - 1) * uniform)


def logit_normal_time(normal: Tensor, mean: float, std: float) -> Tensor:
    """Times in (0, 1) whose logit is normal, from standard normal numbers: more of the middle.

    Source: Esser et al., arXiv:2403.03206, eq. 19. Above 0, `mean` is more of high noise.
    """
    return (mean + std * normal).sigmoid()


def resolution_shift(shift: float, cells: int, reference_cells: int) -> float:
    """The shift of clips of `cells` latent cells, where `shift` is meant for `reference_cells`.

    Source: Esser et al., arXiv:2403.03206, eq. 23: the root of the ratio, by which the noise of a
    larger picture has to grow to hide it as well. Shifts one after the other multiply.
    """
    return shift * math.sqrt(cells / reference_cells)


def add_noise(x0: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """x_t = a x_0 + s n, shaped like `x0`."""
    return a * x0 + s * noise


def regression_target(
    kind: PredictionType, x0: Tensor, noise: Tensor, a: Tensor, s: Tensor
) -> Tensor:
    """What a backbone of this type is trained to output for (x_0, n, t), shaped like `x0`.

    Sources: epsilon, Ho et al. 2020 eq. 14; v, Salimans & Ho 2022 sec. 4; flow, Lipman et al. 2023
    with time running from data to noise, so that the velocity is n - x_0.
    """
    match kind:
        case "epsilon":
            return noise
        case "v_prediction":
            return a * noise - s * x0
        case "sample":
            return x0
        case "flow":
            return noise - x0
        case _:
            assert_never(kind)


def to_x0(kind: PredictionType, prediction: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The clean latents that `prediction` implies at `x_t` (`regression_target` solved for x_0)."""
    match kind:
        case "epsilon":
            return (x_t - s * prediction) / a
        case "v_prediction":
            return a * x_t - s * prediction
        case "sample":
            return prediction
        case "flow":
            return x_t - s * prediction
        case _:
            assert_never(kind)


def to_noise(kind: PredictionType, prediction: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The noise that `prediction` implies at `x_t` (`regression_target` solved for n)."""
    match kind:
        case "epsilon":
            return prediction
        case "v_prediction":
            return s * x_t + a * prediction
        case "sample":
            return (x_t - a * prediction) / s
        case "flow":
            return x_t + a * prediction
        case _:
            assert_never(kind)


def to_score(kind: PredictionType, prediction: Tensor, x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The score, grad log p(x_t), that `prediction` implies (Tweedie: score = -E[n | x_t] / s)."""
    return -to_noise(kind, prediction, x_t, a, s) / s


def score_factor(kind: PredictionType, a: Tensor, s: Tensor) -> Tensor:
    """k(t), the slope of the score in the prediction: likelihood score = k (target - prior).

    `to_score` is affine in the prediction with this slope, so the difference of two predictions at
    the same `x_t` is a difference of scores up to k. Source: the derivative of `to_score`.
    """
    match kind:
        case "epsilon":
            return -1 / s
        case "v_prediction":
            return -a / s
        case "sample":
            return a / s**2
        case "flow":
            return -a / s
        case _:
            assert_never(kind)
