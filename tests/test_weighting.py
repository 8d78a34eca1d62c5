"""Weights by timestep: known values, their meaning in other units, and the ends of the path."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from lisa_video.predictions import (
    PredictionType,
    add_noise,
    regression_target,
    score_factor,
    to_score,
    to_x0,
)
from lisa_video.weighting import min_snr_weight, score_weight

KINDS = get_args(PredictionType)
all_kinds = pytest.mark.parametrize("kind", KINDS)


def path(kind: PredictionType, time: float) -> tuple[Tensor, Tensor]:
    angle = math.pi / 2 * time
    pair = (1 - time, time) if kind == "flow" else (math.cos(angle), math.sin(angle))
    return tuple(torch.tensor(value, dtype=torch.float64) for value in pair)


@pytest.mark.parametrize(
    ("kind", "snr", "gamma", "expected"),
    [
        # Of Hang et al.: min(SNR, 5) / SNR, min(SNR, 5) / (SNR + 1), min(SNR, 5).
        ("epsilon", 20.0, 5.0, 0.25),
        ("epsilon", 3.0, 5.0, 1.0),
        ("v_prediction", 9.0, 5.0, 0.5),
        ("v_prediction", 3.0, 5.0, 0.75),
        ("sample", 9.0, 5.0, 5.0),
        ("sample", 3.0, 5.0, 3.0),
    ],
)
def test_min_snr_has_the_published_values(
    kind: PredictionType, snr: float, gamma: float, expected: float
) -> None:
    s = torch.tensor(1 / (1 + snr), dtype=torch.float64).sqrt()
    a = (1 - s**2).sqrt()
    assert min_snr_weight(kind, a, s, gamma).item() == pytest.approx(expected)


@all_kinds
@pytest.mark.parametrize("time", [0.02, 0.3, 0.5, 0.8, 0.98])
def test_weighted_errors_are_those_in_other_units(kind: PredictionType, time: float) -> None:
    """min_snr weighs the error of x_0 by min(SNR, gamma), score that of the score by s^2."""
    a, s = path(kind, time)
    generator = torch.Generator().manual_seed(0)
    x0, noise, wrong = torch.randn(3, 50, dtype=torch.float64, generator=generator)
    noisy = add_noise(x0, noise, a, s)
    target = regression_target(kind, x0, noise, a, s)
    error = (wrong - target) ** 2
    x0_error = (to_x0(kind, wrong, noisy, a, s) - to_x0(kind, target, noisy, a, s)) ** 2
    snr = (a / s) ** 2
    torch.testing.assert_close(
        min_snr_weight(kind, a, s, 5.0) * error, snr.clamp(max=5.0) * x0_error
    )
    score_error = to_score(kind, wrong, noisy, a, s) - to_score(kind, target, noisy, a, s)
    torch.testing.assert_close(score_weight(kind, a, s) * error, (s * score_error) ** 2)
    torch.testing.assert_close(score_weight(kind, a, s), (s * score_factor(kind, a, s)) ** 2)


@all_kinds
def test_weights_are_finite_at_pure_noise_and_min_snr_at_both_ends(kind: PredictionType) -> None:
    noise, clean = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    for a, s in ((noise[:1], noise[1:]), (clean[:1], clean[1:])):
        assert min_snr_weight(kind, a, s, 5.0).isfinite().all()
    assert score_weight(kind, noise[:1], noise[1:]).isfinite().all()
    assert min_snr_weight("epsilon", noise[:1], noise[1:], 5.0) == 1
