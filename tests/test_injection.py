"""Injection points against what a UNet's encoder really gives."""

import pytest
import torch

from lisa_video.injection import SideResiduals
from lisa_video.side_networks.unet import UNetSideNetwork
from tests.tiny import model_inputs, tiny_backbone

UNEVEN = {
    "block_out_channels": (16, 16, 32),
    "layers_per_block": (2, 1, 2),
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "UpBlockMotion", "CrossAttnUpBlockMotion"),
}


@pytest.mark.parametrize("changes", [{}, UNEVEN])
def test_points_have_the_size_of_the_encoders_activations(changes: dict) -> None:
    backbone = tiny_backbone(**changes)
    inputs = model_inputs(2, 7, 9)
    residuals = UNetSideNetwork.from_backbone(backbone)(*inputs).residuals
    assert list(residuals.points) == list(backbone.injection_points)
    for name, point in backbone.injection_points.items():
        step = 1 << point.halvings
        size = (-(-7 // step), -(-9 // step))
        assert residuals.points[name].shape == (2 * 2, point.channels, *size), name


def test_residuals_scale() -> None:
    residuals = SideResiduals({"mid": torch.ones(2), "down_0": torch.full((1,), 3.0)})
    scaled = residuals.scaled(0.5).points
    assert scaled["mid"].tolist() == [0.5, 0.5]
    assert scaled["down_0"].tolist() == [1.5]
