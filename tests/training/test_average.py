"""The average of weights, against its formula."""

import torch

from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.average import frozen_copy, update_average
from tests.tiny import awakened, tiny_backbone


def test_average_follows_the_weights() -> None:
    network = UNetSideNetwork.from_backbone(tiny_backbone())
    network.train()
    average = frozen_copy(network)
    start = network.projections["mid"].weight.detach().clone()
    new = awakened(network).projections["mid"].weight.detach()

    update_average(average, network, decay=0.9, step=1)
    expected = 2 / 11 * start + 9 / 11 * new
    torch.testing.assert_close(average.projections["mid"].weight, expected)
    update_average(average, network, decay=0.9, step=1000)
    torch.testing.assert_close(average.projections["mid"].weight, 0.9 * expected + 0.1 * new)

    assert network.training and not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
