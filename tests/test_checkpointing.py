"""What is computed again gives the same gradients, bit for bit, and needs less memory."""

import pytest
import torch

from lisa_video.checkpointing import CheckpointedMotion
from lisa_video.memory.tracker import MemoryTracker
from lisa_video.side_networks.pose_encoder import PoseEncoder, VideoPoseEncoder
from tests.tiny import awakened, model_inputs, tiny_backbone


@pytest.mark.parametrize("motion_mid_block", [True, False])
def test_a_motion_unet_and_its_side_network(motion_mid_block: bool) -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        backbone = tiny_backbone(use_motion_mid_block=motion_mid_block)
        side = awakened(backbone.new_side_network())
        if checkpointing:
            backbone.enable_gradient_checkpointing()
            side.enable_gradient_checkpointing()
        inputs = model_inputs(4, 8, 8)
        with MemoryTracker() as tracker:
            controlled, _ = backbone.predict_with_prior(*inputs[:3], side(*inputs).residuals)
            kept.append(tracker.held)
            controlled.square().mean().backward()
        gradients.append({name: each.grad for name, each in side.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert kept[1] < kept[0] / 2
    motion = [each for each in side.modules() if isinstance(each, CheckpointedMotion)]
    assert motion and all(each.gradient_checkpointing for each in motion)


@pytest.mark.parametrize("video", [False, True])
def test_a_pose_encoder(video: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, 5, 32, 32) if video else (5, 3, 32, 32)
    frames = torch.rand(shape, generator=generator)
    gradients, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        widths = (8, 16, 32, 32)
        encoder = (
            VideoPoseEncoder(8, widths, 1, "normal") if video else PoseEncoder(8, widths, "normal")
        )
        encoder.gradient_checkpointing = checkpointing
        encoder._gradient_checkpointing_func = _checkpoint
        with MemoryTracker() as tracker:
            encoded = encoder(frames)
            kept.append(tracker.held)
            encoded.square().sum().backward()
        gradients.append({name: each.grad for name, each in encoder.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert kept[1] < kept[0] / 3


def test_side_networks_are_saved_as_ever(tmp_path: object) -> None:
    side = tiny_backbone().new_side_network()
    side.enable_gradient_checkpointing()
    side.save_pretrained(tmp_path)
    again = type(side).from_pretrained(tmp_path)
    torch.testing.assert_close(again.state_dict(), side.state_dict(), rtol=0, atol=0)
    assert not any(getattr(each, "gradient_checkpointing", False) for each in again.modules())


def _checkpoint(function, *args):  # type: ignore[no-untyped-def]
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)
