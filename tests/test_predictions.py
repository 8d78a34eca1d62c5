"""Prediction types against a Gaussian world in which every conditional mean and score is known.

x_0 ~ N(MEAN, VARIANCE) per element, x_t = a x_0 + s n, and a control c = x_0 + N(0, CONTROL).
"""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from lisa_video.predictions import (
    PREDICTION_TYPES,
    PredictionType,
    add_noise,
    logit_normal_time,
    regression_target,
    resolution_shift,
    score_factor,
    shifted_time,
    to_noise,
    to_score,
    to_x0,
)

MEAN, VARIANCE, CONTROL = 0.7, 2.3, 0.6
TIMES = (0.02, 0.3, 0.5, 0.8, 0.97)

all_kinds = pytest.mark.parametrize("kind", PREDICTION_TYPES)
all_times = pytest.mark.parametrize("time", TIMES)


def signal_and_noise(kind: PredictionType, time: float) -> tuple[Tensor, Tensor]:
    """Coefficients of the path that the type is trained on, at `time` in (0, 1)."""
    pair = (
        (1 - time, time)
        if kind == "flow"
        else (math.cos(math.pi / 2 * time), math.sin(math.pi / 2 * time))
    )
    return tuple(torch.tensor(value, dtype=torch.float64) for value in pair)


def random_latents(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, 5, 6, dtype=torch.float64, generator=generator)


def mean_x0(x_t: Tensor, a: Tensor, s: Tensor, control: Tensor | None = None) -> Tensor:
    """E[x_0 | x_t] or E[x_0 | x_t, c], by adding up precisions."""
    precision = 1 / VARIANCE + a**2 / s**2
    weighted = MEAN / VARIANCE + a * x_t / s**2
    if control is not None:
        precision = precision + 1 / CONTROL
        weighted = weighted + control / CONTROL
    return weighted / precision


def best_prediction(
    kind: PredictionType, x_t: Tensor, a: Tensor, s: Tensor, control: Tensor | None = None
) -> Tensor:
    """The conditional mean of the regression target: what a perfect network outputs."""
    x0 = mean_x0(x_t, a, s, control)
    return regression_target(kind, x0, (x_t - a * x0) / s, a, s)


def score_by_autograd(log_density: Tensor, x_t: Tensor) -> Tensor:
    (score,) = torch.autograd.grad(log_density.sum(), x_t)
    return score


def log_normal(value: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """Log density up to a constant in x_t."""
    return -((value - mean) ** 2) / (2 * variance)


def test_regression_targets_are_the_formulas_of_the_method() -> None:
    x0, noise, a, s = (torch.tensor(v, dtype=torch.float64) for v in (2.0, 3.0, 0.8, 0.6))
    targets = {kind: regression_target(kind, x0, noise, a, s).item() for kind in PREDICTION_TYPES}
    expected = {"epsilon": 3.0, "v_prediction": 0.8 * 3 - 0.6 * 2, "sample": 2.0, "flow": 1.0}
    assert targets == pytest.approx(expected)


def test_score_factors_are_the_table_of_the_method() -> None:
    a, s = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    factors = {kind: score_factor(kind, a, s).item() for kind in PREDICTION_TYPES}
    assert factors == pytest.approx(
        {"epsilon": -1 / 0.6, "v_prediction": -0.8 / 0.6, "sample": 0.8 / 0.36, "flow": -0.8 / 0.6}
    )


@all_kinds
@all_times
def test_target_gives_back_x0_and_noise(kind: PredictionType, time: float) -> None:
    a, s = signal_and_noise(kind, time)
    x0, noise = random_latents(0), random_latents(1)
    x_t = add_noise(x0, noise, a, s)
    target = regression_target(kind, x0, noise, a, s)
    torch.testing.assert_close(to_x0(kind, target, x_t, a, s), x0)
    torch.testing.assert_close(to_noise(kind, target, x_t, a, s), noise)


@all_kinds
@all_times
def test_any_prediction_survives_the_way_through_x0_and_noise(
    kind: PredictionType, time: float
) -> None:
    a, s = signal_and_noise(kind, time)
    prediction, x_t = random_latents(2), random_latents(3)
    x0 = to_x0(kind, prediction, x_t, a, s)
    noise = to_noise(kind, prediction, x_t, a, s)
    torch.testing.assert_close(add_noise(x0, noise, a, s), x_t)
    torch.testing.assert_close(regression_target(kind, x0, noise, a, s), prediction)


@all_kinds
@all_times
def test_perfect_prediction_gives_the_marginal_score(kind: PredictionType, time: float) -> None:
    a, s = signal_and_noise(kind, time)
    x_t = random_latents(4).requires_grad_()
    marginal = log_normal(x_t, a * MEAN, a**2 * VARIANCE + s**2)
    prediction = best_prediction(kind, x_t, a, s)
    torch.testing.assert_close(
        to_score(kind, prediction, x_t, a, s), score_by_autograd(marginal, x_t)
    )


@all_kinds
@all_times
def test_target_minus_prior_is_the_likelihood_score(kind: PredictionType, time: float) -> None:
    a, s = signal_and_noise(kind, time)
    x_t, control = random_latents(5).requires_grad_(), random_latents(6)
    posterior_variance = 1 / (1 / VARIANCE + a**2 / s**2)
    likelihood = log_normal(control, mean_x0(x_t, a, s), posterior_variance + CONTROL)

    target = best_prediction(kind, x_t, a, s, control)
    prior = best_prediction(kind, x_t, a, s)
    score = score_factor(kind, a, s) * (target - prior)
    torch.testing.assert_close(score, score_by_autograd(likelihood, x_t))


@all_kinds
def test_regressing_single_samples_finds_the_likelihood_score(kind: PredictionType) -> None:
    """Training sees one (x_0, n) at a time: the best linear fit of k (target - prior) on (x_t, c)
    has to have the slopes of the likelihood score."""
    a, s = signal_and_noise(kind, 0.6)
    generator = torch.Generator().manual_seed(7)
    draws = torch.randn(3, 400_000, dtype=torch.float64, generator=generator)
    x0, noise = MEAN + math.sqrt(VARIANCE) * draws[0], draws[1]
    control = x0 + math.sqrt(CONTROL) * draws[2]
    x_t = add_noise(x0, noise, a, s)
    difference = regression_target(kind, x0, noise, a, s) - best_prediction(kind, x_t, a, s)

    inputs = torch.stack([x_t, control, torch.ones_like(x_t)], dim=1)
    fit = torch.linalg.lstsq(inputs, score_factor(kind, a, s) * difference).solution

    slope = a / (s**2 * (1 / VARIANCE + a**2 / s**2))  # of E[x_0 | x_t] in x_t
    pull = slope / (1 / (1 / VARIANCE + a**2 / s**2) + CONTROL)
    expected = torch.stack([-slope * pull, pull])
    torch.testing.assert_close(fit[:2], expected, atol=0.01, rtol=0)


def test_zero_terminal_snr_leaves_no_likelihood_score_in_v_prediction() -> None:
    """At a = 0 the latent is pure noise: x_0 is still defined and the score is the noise's."""
    a, s = torch.tensor(0.0), torch.tensor(1.0)
    x0, noise = random_latents(8), random_latents(9)
    x_t = add_noise(x0, noise, a, s)
    target = regression_target("v_prediction", x0, noise, a, s)
    torch.testing.assert_close(to_x0("v_prediction", target, x_t, a, s), x0)
    torch.testing.assert_close(to_score("v_prediction", target, x_t, a, s), -noise)
    assert score_factor("v_prediction", a, s) == 0


@all_kinds
def test_one_timestep_per_clip_broadcasts(kind: PredictionType) -> None:
    pairs = [signal_and_noise(kind, time) for time in (0.2, 0.7)]
    a, s = (torch.stack(values).view(2, 1, 1, 1, 1) for values in zip(*pairs, strict=True))
    prediction, x_t = random_latents(10), random_latents(11)
    scores = to_score(kind, prediction, x_t, a, s)
    for clip, (a_clip, s_clip) in enumerate(pairs):
        alone = to_score(kind, prediction[clip], x_t[clip], a_clip, s_clip)
        torch.testing.assert_close(scores[clip], alone)


def test_the_table_of_types_is_complete() -> None:
    assert get_args(PredictionType) == PREDICTION_TYPES


def test_shifted_times_stay_in_order_and_shift_one_changes_nothing() -> None:
    uniform = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(shifted_time(uniform, 1.0), uniform)
    shifted = shifted_time(uniform, 3.0)
    assert (shifted.diff() > 0).all() and shifted[0] == 0 and shifted[-1] == 1
    assert shifted[5] == pytest.approx(0.75)  # 3 * 0.5 / (1 + 2 * 0.5)


def test_logit_normal_times_have_their_quantiles() -> None:
    """The median is sigmoid(mean), and a deviation to either side sigmoid(mean -+ std)."""
    normal = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    times = logit_normal_time(normal, mean=0.5, std=2.0)
    expected = [1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-2.5))]
    assert times.tolist() == pytest.approx(expected)


def test_resolution_shift_is_the_root_of_the_ratio_of_cells() -> None:
    assert resolution_shift(1.0, 64 * 64, 32 * 32) == 2.0
    assert resolution_shift(3.0, 500, 500) == 3.0
    # The published form, which is a shift by that root after the one before.
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    root = math.sqrt(4000 / 1000)
    published = root * shifted_time(times, 3.0) / (1 + (root - 1) * shifted_time(times, 3.0))
    torch.testing.assert_close(shifted_time(times, resolution_shift(3.0, 4000, 1000)), published)
