"""The adherence probe on a tiny model."""

import pytest
import torch
from torch import Tensor, nn

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.config import ProbeConfig
from lisa_video.training.probe import AdherenceProbe, ProbeResult, shuffled_order
from tests.tiny import awakened, model_inputs, tiny_backbone

CLIPS = 5


@pytest.fixture(scope="module")
def backbone() -> AnimateDiffBackbone:
    return tiny_backbone()


def build_probe(backbone: AnimateDiffBackbone, seed: int = 0, at_once: int = 2) -> AdherenceProbe:
    latents, _, text, poses = model_inputs(frames=2, height=4, width=4, batch=CLIPS)
    config = ProbeConfig(clips=CLIPS, draws=3, seed=seed)
    return AdherenceProbe(config, backbone, latents, text, poses, shift=2.0, at_once=at_once)


@pytest.mark.parametrize("count", [2, 3, 8, 33])
def test_shuffling_never_keeps_a_clip(count: int) -> None:
    for seed in range(50):
        order = shuffled_order(count, torch.Generator().manual_seed(seed))
        assert sorted(order.tolist()) == list(range(count))
        assert (order != torch.arange(count)).all()


def test_probe_repeats_itself_whatever_the_global_seed(backbone: AnimateDiffBackbone) -> None:
    side = awakened(UNetSideNetwork.from_backbone(backbone))
    first = build_probe(backbone).measure(side)
    torch.manual_seed(123)
    probe = build_probe(backbone)
    assert probe.measure(side) == probe.measure(side) == first
    assert build_probe(backbone, seed=1).measure(side) != first
    in_one = build_probe(backbone, at_once=CLIPS).measure(side)
    torch.testing.assert_close(in_one.values(), first.values())


def test_probe_losses_by_hand(backbone: AnimateDiffBackbone) -> None:
    side = awakened(UNetSideNetwork.from_backbone(backbone))
    probe = build_probe(backbone)
    result = probe.measure(side)

    def loss(pose_frames: Tensor | None) -> float:
        errors = []
        for draw in probe.draws:
            inputs = (draw.noisy, draw.timesteps, probe.text)
            residuals = None if pose_frames is None else side(*inputs, pose_frames).residuals
            errors.append((backbone.predict(*inputs, residuals) - draw.target).square().mean())
        return float(torch.stack(errors).mean())

    with torch.no_grad():
        poses = probe.pose_frames
        assert result.true == pytest.approx(loss(poses), rel=1e-5)
        assert result.shuffled == pytest.approx(loss(poses[probe.shuffled_order]), rel=1e-5)
        assert result.none == pytest.approx(loss(0 * poses), rel=1e-5)
        assert result.prior == pytest.approx(loss(None), rel=1e-5)
    assert len({result.true, result.shuffled, result.none, result.prior}) == 4


def test_new_network_has_no_gap_and_stays_in_training_mode(backbone: AnimateDiffBackbone) -> None:
    side = UNetSideNetwork.from_backbone(backbone)
    side.train()
    result = build_probe(backbone).measure(side)
    assert result.gap == 0 and result.explained == 0
    assert result.true == result.none == result.prior
    assert side.training
    assert all(module.training for module in side.modules() if isinstance(module, nn.Module))


def test_gap_and_explained() -> None:
    result = ProbeResult(true=0.5, shuffled=0.8, none=0.7, prior=1.0)
    assert result.gap == pytest.approx(0.3) and result.explained == 0.5
    assert result.values()["gap"] == result.gap
