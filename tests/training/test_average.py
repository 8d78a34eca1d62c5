"""The average of weights, against its formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.average import (
    average_decay,
    frozen_copy,
    power_exponent,
    update_averages,
)
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import EmaConfig
from lisa_video.training.encoding import ClipEncoder
from tests.tiny import awakened, tiny_backbone
from tests.training.resuming import assert_resumes_exactly


def test_average_follows_the_weights() -> None:
    network = UNetSideNetwork.from_backbone(tiny_backbone())
    network.train()
    average = frozen_copy(network)
    start = network.projections["mid"].weight.detach().clone()
    new = awakened(network).projections["mid"].weight.detach()
    networks, config = Networks(network, average, None), EmaConfig(decay=0.9)

    update_averages(networks, config, step=1)
    expected = 2 / 11 * start + 9 / 11 * new
    torch.testing.assert_close(average.projections["mid"].weight, expected)
    update_averages(networks, config, step=1000)
    torch.testing.assert_close(average.projections["mid"].weight, 0.9 * expected + 0.1 * new)

    assert network.training and not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())


def averaged(config: EmaConfig, values: list[float]) -> float:
    """The average of one weight that had these values after steps 1, 2, ..."""
    average = float("nan") if config.sigma_rel else 0.0
    for step, value in enumerate(values, start=1):
        if step % config.every == 0:
            decay = average_decay(config, step)
            average = value if decay == 0 else decay * average + (1 - decay) * value
    return average


def test_updates_may_be_rarer_at_the_same_horizon() -> None:
    """Of a weight that is 1 from the first step on, the share that has not arrived."""
    for decay in (0.9, 0.999):
        often, rarely = (
            averaged(EmaConfig(decay, warmup=False, every=every), [1.0] * 60) for every in (1, 6)
        )
        assert often == pytest.approx(1 - decay**60)
        assert rarely == pytest.approx(often)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2, 0.28])
def test_power_function_weights_have_the_width_asked_for(sigma: float) -> None:
    """The average of 1..n by weights t^gamma; their relative deviation is sigma."""
    gamma, steps = power_exponent(sigma), 4000
    times = np.arange(1, steps + 1)
    profile = times**gamma / (times**gamma).sum()
    mean = (profile * times).sum()
    assert np.sqrt((profile * (times - mean) ** 2).sum()) / steps == pytest.approx(sigma, rel=1e-3)
    found = averaged(EmaConfig(sigma_rel=sigma), times.astype(float).tolist())
    assert found == pytest.approx(mean, rel=1e-2)
    rarer = averaged(EmaConfig(sigma_rel=sigma, every=10), times.astype(float).tolist())
    assert rarer == pytest.approx(mean, rel=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema__warmup": False, "ema__every": 3},
        {"ema__sigma_rel": 0.1, "ema__every": 2},
        {"ema__decay": 0.0},
    ],
)
def test_every_average_goes_on_bit_for_bit(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    state = assert_resumes_exactly(clips, encoder, tmp_path, **changes)
    assert (state.networks.average is None) == (changes.get("ema__decay") == 0.0)
    assert state.networks.finished.projections["mid"].weight.abs().sum() > 0
