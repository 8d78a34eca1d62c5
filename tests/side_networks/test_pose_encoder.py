"""The causal pose encoder of video transformers."""

import pytest
import torch
from torch import nn

from lisa_video.side_networks.pose_encoder import SpatialConv3d, VideoPoseEncoder, pose_widths


def encoder(time_halvings: int = 2, halvings: int = 3) -> VideoPoseEncoder:
    torch.manual_seed(0)
    return VideoPoseEncoder(8, pose_widths(halvings), time_halvings, "normal")


@pytest.mark.parametrize("time_halvings", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [0, 1, 3])
def test_frames_become_latent_frames(time_halvings: int, groups: int) -> None:
    frames = 1 + groups * 2**time_halvings
    encoded = encoder(time_halvings)(torch.rand(2, 3, frames, 16, 24))
    assert encoded.shape == (2, 8, 1 + groups, 2, 3)
    assert encoded.std() > 0


def test_no_latent_frame_sees_a_later_frame() -> None:
    network, poses = encoder(), torch.rand(1, 3, 13, 16, 16)
    before = network(poses)
    for frame, first_changed in [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (12, 3)]:
        changed = poses.clone()
        changed[:, :, frame] = torch.rand(1, 3, 16, 16)
        same = (network(changed) == before).flatten(3).all(-1).all(dim=1)[0]
        assert same.tolist()[:first_changed] == [True] * first_changed
        assert not same[first_changed]


def test_first_latent_frame_is_that_of_the_first_frame_alone() -> None:
    network, poses = encoder(), torch.rand(1, 3, 9, 16, 16)
    torch.testing.assert_close(network(poses)[:, :, :1], network(poses[:, :, :1]))


def test_zero_start_hides_the_poses() -> None:
    hidden = VideoPoseEncoder(8, pose_widths(3), 2, "zero")(torch.rand(1, 3, 5, 16, 16))
    assert hidden.count_nonzero() == 0


def test_pictures_are_convolved_as_a_video_is() -> None:
    torch.manual_seed(0)
    conv, frames = SpatialConv3d(5, 7), torch.randn(2, 5, 3, 8, 6)
    torch.testing.assert_close(conv(frames), nn.Conv3d.forward(conv, frames))
