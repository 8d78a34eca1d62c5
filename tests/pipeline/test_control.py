"""Scales by frame, several side networks, and what both halves of guidance share."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.pipeline.control import frame_scales
from lisa_video.side_networks.group import SideNetworkGroup
from tests.tiny import awakened, tiny_backbone, tiny_checkpoint
from tests.tiny_cogvideox import tiny_cogvideox
from tests.tiny_wan import tiny_wan

BACKBONES = [tiny_backbone(), tiny_wan(num_layers=2), tiny_cogvideox(num_layers=2)]
BY_KIND = pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.kind)


def poses(seed: int = 7) -> Tensor:
    return torch.rand(1, 9, 3, 24, 32, generator=torch.Generator().manual_seed(seed))


def side(backbone: VideoBackbone, seed: int = 1) -> object:
    return awakened(backbone.new_side_network(), seed)


def latents_of(pipeline: PoseToVideoPipeline, **changes: object) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    settings = {
        "prompt": "a man",
        "pose_frames": poses(),
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipeline(**(settings | changes)).frames


@BY_KIND
def test_a_scale_for_each_frame(backbone: VideoBackbone) -> None:
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side(backbone))
    one, each = (latents_of(pipeline, control_scale=scale) for scale in (0.6, [0.6] * 9))
    assert torch.equal(one, each)
    assert torch.equal(
        latents_of(pipeline, control_scale=[0.0] * 9), latents_of(pipeline, control_scale=0)
    )
    half = [0.6] * 4 + [0.0] * 5
    assert not torch.equal(latents_of(pipeline, control_scale=half), one)


@BY_KIND
def test_scales_reach_the_residuals_of_their_latent_frame(backbone: VideoBackbone) -> None:
    scales = frame_scales(backbone, list(range(9)), 9, 9)
    if backbone.frames_per_latent == 1:
        assert scales.tolist() == list(range(9))
    else:
        assert scales.tolist() == [0, 2.5, 6.5]
    noisy = torch.randn(1, 4, len(scales), 6, 8)
    text = backbone.encode_text(["a", "man"])
    with torch.no_grad():
        output = backbone.side_output(side(backbone), noisy, torch.tensor([5]), text, poses())
    for name, value in output.residuals.scaled(scales).points.items():
        plain = output.residuals.points[name]
        frames, own = (
            each.reshape(2, len(scales), -1) for each in (plain, value)
        )  # frames of a clip are adjacent in cells and in tokens
        torch.testing.assert_close(own, frames * scales[None, :, None])


def test_frames_added_to_fit_the_vae_have_the_last_scale() -> None:
    assert frame_scales(BACKBONES[1], [1, 2, 2, 2, 4, 6], 6, 9).tolist() == [1, 2.5, 6]
    with pytest.raises(UserError, match="control_scale: 3 values for 6 frames"):
        frame_scales(BACKBONES[1], [1, 2, 3], 6, 9)


@BY_KIND
def test_side_outputs_for_several_texts_are_those_of_each_alone(backbone: VideoBackbone) -> None:
    network = side(backbone)
    frames = backbone.latent_frames(9)
    noisy = torch.randn(2, 4, frames, 6, 8, generator=torch.Generator().manual_seed(0))
    timesteps, drawn = torch.tensor([7, 300]), torch.cat([poses(), poses(8)])
    texts = [backbone.encode_text(pair) for pair in (["", "a"], ["a man", "two"])]
    with torch.no_grad():
        both = backbone.side_output(
            network, noisy, timesteps, torch.cat(texts), network.encode_poses(drawn)
        )
        apart = [backbone.side_output(network, noisy, timesteps, each, drawn) for each in texts]
    for name, value in both.residuals.points.items():
        expected = torch.cat([each.residuals.points[name] for each in apart])
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@BY_KIND
def test_shared_control_is_exact_where_both_texts_are_the_same(backbone: VideoBackbone) -> None:
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side(backbone))
    runs: list[int] = []
    hook = pipeline.side_network.register_forward_hook(
        lambda _, __, output: runs.append(len(next(iter(output.residuals.points.values()))))
    )
    same = {"negative_prompt": "a man"}
    shared = latents_of(pipeline, share_control=True, **same)
    once = runs[0]
    torch.testing.assert_close(shared, latents_of(pipeline, **same), rtol=0, atol=1e-4)
    assert runs[-1] == 2 * once
    hook.remove()
    assert not torch.allclose(
        latents_of(pipeline, share_control=True), latents_of(pipeline), atol=1e-3
    )


@BY_KIND
def test_several_side_networks_add_up(backbone: VideoBackbone) -> None:
    first, second = side(backbone), side(backbone, seed=2)
    both = PoseToVideoPipeline.from_backbone(backbone, [first, second])
    drawn = [poses(), poses(8)]
    for network, own, scales in [(first, drawn[0], [0.8, 0.0]), (second, drawn[1], [0.0, 0.8])]:
        alone = PoseToVideoPipeline.from_backbone(backbone, network)
        expected = latents_of(alone, pose_frames=own, control_scale=0.8)
        assert torch.equal(latents_of(both, pose_frames=drawn, control_scale=scales), expected)
    twins = PoseToVideoPipeline.from_backbone(backbone, [first, first])
    doubled = latents_of(twins, pose_frames=[poses(), poses()], control_scale=0.25)
    expected = latents_of(PoseToVideoPipeline.from_backbone(backbone, first), control_scale=0.5)
    torch.testing.assert_close(doubled, expected, rtol=0, atol=1e-4)


@BY_KIND
def test_bytes_are_poses_up_to_255(backbone: VideoBackbone) -> None:
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side(backbone))
    drawn = (poses() * 255).round().to(torch.uint8)
    asked = latents_of(pipeline, pose_frames=drawn / 255)
    assert torch.equal(latents_of(pipeline, pose_frames=drawn), asked)


def test_a_group_is_saved_and_loaded(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    tiny_checkpoint(tmp_path / "backbone", backbone)
    for name, seed in (("first", 1), ("second", 2)):
        side(backbone, seed).save_pretrained(tmp_path / name)
    pipeline = PoseToVideoPipeline.from_pretrained(
        tmp_path / "backbone", side_network=[tmp_path / "first", tmp_path / "second"]
    )
    changes = {"pose_frames": [poses(), poses(8)], "control_scale": [0.5, [0.1] * 9]}
    expected = latents_of(pipeline, **changes)
    pipeline.save_pretrained(tmp_path / "whole")
    whole = PoseToVideoPipeline.from_pretrained(tmp_path / "whole")
    assert isinstance(whole.side_network, SideNetworkGroup)
    assert torch.equal(latents_of(whole, **changes), expected)
    second = load_side_network(tmp_path / "whole" / "side_network_1")
    assert torch.equal(
        second.pose_encoder.conv_out.weight,
        load_side_network(tmp_path / "second").pose_encoder.conv_out.weight,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "1 pose_frames for 2 side networks"),
        ({"pose_frames": [poses()] * 3}, "3 pose_frames for 2 side networks"),
        ({"pose_frames": [poses(), poses()[:, :5]]}, "must agree: 5 frames, .*; 9 frames, 32x24"),
        ({"pose_frames": [poses()] * 2, "control_scale": [1.0]}, "1 for 2 side networks"),
        ({"pose_frames": None}, "give drawn poses or a pose sequence"),
    ],
)
def test_what_does_not_fit_several_side_networks_is_refused(changes: dict, message: str) -> None:
    backbone = BACKBONES[0]
    both = PoseToVideoPipeline.from_backbone(backbone, [side(backbone), side(backbone, 2)])
    with pytest.raises(UserError, match=message):
        latents_of(both, **changes)
    with pytest.raises(UserError, match="was made for another backbone"):
        PoseToVideoPipeline.from_backbone(backbone, [side(backbone), side(tiny_backbone(seed=1))])
