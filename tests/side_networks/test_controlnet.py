"""Side networks that start from a ControlNet, against the ControlNet itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from einops import rearrange, repeat
from torch import Tensor, nn

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.benchmarks.parameters import published_settings, read_training
from lisa_video.errors import UserError
from lisa_video.side_networks.controlnet import exported
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.setup import open_backbone
from tests.tiny import awakened, model_inputs, tiny_backbone
from tests.tiny_controlnet import tiny_controlnet

ROOT = Path(__file__).parents[2]
POINTS = ["down_0", "down_1", "down_2", "down_3", "mid"]


@pytest.fixture(scope="module")
def backbone() -> AnimateDiffBackbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("controlnet")
    tiny_controlnet().save_pretrained(path)
    return path


def silence_motion(side: UNetSideNetwork) -> None:
    """Motion modules add what their last layer makes; nothing comes out of zeros."""
    for name, parameter in side.named_parameters():
        if ".motion_modules." in name and ".proj_out." in name:
            nn.init.zeros_(parameter)


def controlnet_residuals(controlnet: ControlNetModel, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Each frame as an image of its own."""
    noisy, timesteps, text, poses = inputs
    frames = noisy.shape[2]
    down, mid = controlnet(
        rearrange(noisy, "b c f h w -> (b f) c h w"),
        repeat(timesteps, "b -> (b f)", f=frames),
        repeat(text, "b l d -> (b f) l d", f=frames),
        controlnet_cond=rearrange(poses, "b f c h w -> (b f) c h w"),
        return_dict=False,
    )
    return [*down, mid]


@pytest.mark.parametrize("frames", [1, 4])
def test_without_motion_the_residuals_are_the_controlnets(
    backbone: AnimateDiffBackbone, folder: Path, frames: int
) -> None:
    side = UNetSideNetwork.from_backbone(backbone, controlnet=folder).eval()
    silence_motion(side)
    inputs = model_inputs(frames)
    with torch.no_grad():
        got = side(*inputs).residuals.points
        expected = controlnet_residuals(tiny_controlnet(), inputs)
    assert list(got) == POINTS
    for name, residual in zip(POINTS, expected, strict=True):
        torch.testing.assert_close(got[name], residual, rtol=1e-5, atol=1e-5)
        assert residual.abs().max() > 1e-3
    # Control is there from the start, unlike with a copy of the backbone.
    steered = backbone.predict(*inputs[:3], side(*inputs).residuals)
    assert not torch.allclose(steered, backbone.predict(*inputs[:3]), atol=1e-3)


def test_only_motion_modules_stay_the_backbones(
    backbone: AnimateDiffBackbone, folder: Path
) -> None:
    side = UNetSideNetwork.from_backbone(backbone, controlnet=folder, seed=5)
    theirs, unet = tiny_controlnet().state_dict(), backbone.main_network.state_dict()
    for name, weights in side.state_dict().items():
        if ".motion_modules." in name:
            assert torch.equal(weights, unet[name]), name
        elif name.startswith("pose_encoder."):
            other = name.replace("pose_encoder.", "controlnet_cond_embedding.")
            assert torch.equal(weights, theirs[other]), name
        elif name.startswith("projections.down_"):
            other = name.replace("projections.down_", "controlnet_down_blocks.")
            assert torch.equal(weights, theirs[other]), name
        elif name.startswith("projections.mid"):
            other = name.replace("projections.mid", "controlnet_mid_block")
            assert torch.equal(weights, theirs[other]), name
        else:
            assert torch.equal(weights, theirs[name]), name
    assert list(side.config.pose_channels) == [6, 8, 10]


def test_what_was_taken_is_told(backbone: AnimateDiffBackbone, folder: Path) -> None:
    side = UNetSideNetwork.from_backbone(
        backbone, injection=["down_1", "down_3"], controlnet=str(folder)
    )
    told = side.taken_over
    assert told is not None
    assert told.source == str(folder)
    parts = ("conv_in", "time_embedding", "down_blocks", "mid_block", "pose_encoder", "projections")
    assert set(told.taken) == set(parts)
    assert told.taken["projections"] == 16 * 16 + 16 + 32 * 32 + 32
    parameters = sum(parameter.numel() for parameter in side.parameters())
    assert sum(told.taken.values()) + told.kept["motion modules"] == parameters
    assert told.left_out == ("down_0", "down_2", "mid")
    lines = told.lines()
    assert len(lines) == 3
    assert str(folder) in lines[0]
    assert "motion modules" in lines[1]
    assert "down_0, down_2, mid" in lines[2]
    whole = UNetSideNetwork.from_backbone(backbone, controlnet=folder)
    assert whole.taken_over is not None
    assert len(whole.taken_over.lines()) == 2
    assert UNetSideNetwork.from_backbone(backbone).taken_over is None


def test_it_is_saved_and_loaded_like_any_other(
    backbone: AnimateDiffBackbone, folder: Path, tmp_path: Path
) -> None:
    side = UNetSideNetwork.from_backbone(backbone, controlnet=folder).eval()
    side.save_pretrained(tmp_path)
    loaded = UNetSideNetwork.from_pretrained(tmp_path)
    loaded.check_backbone(backbone)
    inputs = model_inputs()
    ours, theirs = (each(*inputs).residuals.points for each in (side, loaded))
    assert all(torch.equal(ours[name], theirs[name]) for name in POINTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": (16, 16)}, r"has widths \(16, 16\), and the backbone \(16, 32\)"),
        ({"cross_attention_dim": 24}, r"has text width \(24, 24\), and the backbone \(32, 32\)"),
        ({"attention_head_dim": 4}, r"has attention heads \(4, 4\), and the backbone \(2, 2\)"),
        ({"in_channels": 9}, "has latent channels 9, and the backbone 4"),
        ({"conditioning_channels": 1}, "has conditioning_channels 1, only 3 fits"),
        ({"controlnet_conditioning_channel_order": "bgr"}, "only rgb fits"),
        ({"conditioning_embedding_out_channels": (6, 8)}, "halves conditions 1 times, .* 2 times"),
        ({"num_class_embeds": 2}, "class_embedding.weight is not the same"),
        (
            {"down_block_types": ("CrossAttnDownBlock2D",) * 2},
            r"down_blocks\.1\.attentions.* is not the same in the backbone's UNet",
        ),
    ],
)
def test_another_kind_of_controlnet_is_refused_in_one_line(
    backbone: AnimateDiffBackbone, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    tiny_controlnet(**changes).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        UNetSideNetwork.from_backbone(backbone, controlnet=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_controlnet_is_refused_in_one_line(
    backbone: AnimateDiffBackbone, tmp_path: Path
) -> None:
    backbone.main_network.save_pretrained(tmp_path / "unet")
    for name, message in [
        ("unet", "holds a UNetMotionModel, expected a ControlNetModel"),
        ("absent", "no such folder"),
        (".", "not a loadable ControlNetModel"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            UNetSideNetwork.from_backbone(backbone, controlnet=tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_controlnet_of_stable_diffusion_fits_the_published_backbone(tmp_path: Path) -> None:
    """By shapes alone: all of its 361 M weights have a place, and all others are of motion."""
    config = read_training(ROOT / "configs" / "animatediff" / "sd15_lisa.yaml")
    settings = published_settings(config.backbone, ROOT / "configs" / "published")
    with torch.device("meta"):
        ControlNetModel(cross_attention_dim=768).save_config(tmp_path / "openpose")
        ControlNetModel(cross_attention_dim=1024).save_config(tmp_path / "sd21")
        backbone = open_backbone(settings)
        side = backbone.new_side_network(controlnet=str(tmp_path / "openpose"))
        with pytest.raises(UserError, match=r"text width \(1024, .*, and the backbone \(768, "):
            backbone.new_side_network(controlnet=str(tmp_path / "sd21"))
    assert side.taken_over is not None
    assert sum(side.taken_over.taken.values()) == 361_279_120
    assert side.taken_over.left_out == ()
    assert list(side.config.pose_channels) == [16, 32, 96, 256]


@pytest.mark.parametrize("injection", ["all", ["down_1", "mid"]])
@pytest.mark.parametrize("channels", [None, [6, 8, 10]])
def test_without_motion_modules_it_is_a_controlnet_of_diffusers(
    backbone: AnimateDiffBackbone,
    tmp_path: Path,
    injection: Any,
    channels: list[int] | None,
) -> None:
    side = UNetSideNetwork.from_backbone(
        backbone, injection=injection, pose_channels=channels, motion_modules=False
    )
    awakened(side).eval()
    assert not any(".motion_modules." in name for name in side.state_dict())
    exported(side).save_pretrained(tmp_path)
    controlnet = ControlNetModel.from_pretrained(tmp_path)
    inputs = model_inputs(frames=3)
    with torch.no_grad():
        ours = side(*inputs).residuals.points
        theirs = dict(zip(POINTS, controlnet_residuals(controlnet, inputs), strict=True))
    for name, residual in theirs.items():
        if name in ours:
            torch.testing.assert_close(residual, ours[name], rtol=1e-5, atol=1e-5)
            assert residual.abs().max() > 1e-3
        else:
            assert not residual.any()
    # And back: a side network that starts from it steers alike.
    again = UNetSideNetwork.from_backbone(
        backbone, injection=injection, controlnet=tmp_path, motion_modules=False
    ).eval()
    assert all(
        torch.equal(value, side.state_dict()[name]) for name, value in again.state_dict().items()
    )


def test_without_motion_modules_frames_are_looked_at_alone(
    backbone: AnimateDiffBackbone, tmp_path: Path
) -> None:
    side = awakened(UNetSideNetwork.from_backbone(backbone, motion_modules=False)).eval()
    noisy, timesteps, text, poses = model_inputs(frames=3)
    one = side(noisy[:, :, 1:2], timesteps, text, poses[:, 1:2]).residuals.points["mid"]
    three = side(noisy, timesteps, text, poses).residuals.points["mid"]
    torch.testing.assert_close(three.unflatten(0, (2, 3))[:, 1], one, rtol=1e-5, atol=1e-5)
    side.save_pretrained(tmp_path)
    assert UNetSideNetwork.from_pretrained(tmp_path).config.motion_modules is False


def test_motion_modules_have_no_place_in_a_controlnet(backbone: AnimateDiffBackbone) -> None:
    with pytest.raises(UserError, match=r"has motion modules.*side_network.motion_modules=false"):
        exported(UNetSideNetwork.from_backbone(backbone))
