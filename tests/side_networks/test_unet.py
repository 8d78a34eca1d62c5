"""The temporal side network on tiny backbones."""

from pathlib import Path

import pytest
import torch
from einops import rearrange

from lisa_video.backbones import load_side_network
from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.errors import UserError
from lisa_video.side_networks.pose_encoder import PoseEncoder, pose_widths
from lisa_video.side_networks.unet import UNetSideNetwork
from tests.tiny import awakened, epsilon_scheduler, model_inputs, tiny_backbone

OWN = ("pose_encoder.", "projections.")


@pytest.fixture(scope="module")
def backbone() -> AnimateDiffBackbone:
    return tiny_backbone()


def same_outputs(one: UNetSideNetwork, other: UNetSideNetwork) -> bool:
    inputs = model_inputs()
    first, second = one(*inputs), other(*inputs)
    return all(
        torch.equal(first.residuals.points[name], second.residuals.points[name])
        for name in first.residuals.points
    )


# Start: a copy that changes nothing.


@pytest.mark.parametrize("changes", [{}, {"use_motion_mid_block": False}])
def test_encoder_weights_are_the_backbones(changes: dict) -> None:
    backbone = tiny_backbone(**changes)
    side = UNetSideNetwork.from_backbone(backbone)
    ours, theirs = side.state_dict(), backbone.main_network.state_dict()
    copied = {name for name in ours if not name.startswith(OWN)}
    parts = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    assert copied == {name for name in theirs if name.startswith(parts)}
    assert all(torch.equal(ours[name], theirs[name]) for name in copied)
    assert any("down_blocks.0.motion_modules" in name for name in copied)
    assert any("mid_block.motion_modules" in name for name in copied) == (not changes)
    assert not {p.data_ptr() for p in side.parameters()} & {
        p.data_ptr() for p in backbone.main_network.parameters()
    }


@pytest.mark.parametrize("pose_init", ["zero", "normal"])
@pytest.mark.parametrize("scheduler", [None, epsilon_scheduler()])
@pytest.mark.parametrize("frames", [1, 5])
def test_first_prediction_is_the_backbones_bit_for_bit(
    pose_init: str, scheduler: object, frames: int
) -> None:
    backbone = tiny_backbone(scheduler=scheduler)
    side = UNetSideNetwork.from_backbone(backbone, pose_init=pose_init)
    inputs = model_inputs(frames, 7, 9)
    residuals = side(*inputs).residuals
    alone = backbone.predict(*inputs[:3])
    controlled, prior = backbone.predict_with_prior(*inputs[:3], residuals)
    assert torch.equal(backbone.predict(*inputs[:3], residuals), alone)
    assert torch.equal(controlled, alone)
    assert torch.equal(prior, alone)


def test_first_features_are_the_backbones_activations(backbone: AnimateDiffBackbone) -> None:
    """The zero-initialised pose encoder adds nothing yet, so the taps are the encoder's skips."""
    names = list(backbone.injection_points)
    side = UNetSideNetwork.from_backbone(backbone, taps=names).eval()
    inputs = model_inputs(3, 7, 9)
    captured: dict[str, torch.Tensor] = {}

    def keep(_block: object, _args: object, kwargs: dict) -> None:
        captured.setdefault("mid", kwargs["hidden_states"])
        skips = kwargs["res_hidden_states_tuple"]
        last = len(names) - 1 - (len(captured) - 1)
        captured.update({f"down_{last - len(skips) + i}": skip for i, skip in enumerate(skips)})

    hooks = [
        block.register_forward_pre_hook(keep, with_kwargs=True)
        for block in backbone.main_network.up_blocks
    ]
    backbone.predict(*inputs[:3])
    for hook in hooks:
        hook.remove()
    taps = side(*inputs).taps
    assert list(taps) == names
    assert set(captured) == set(names)
    assert all(torch.equal(taps[name], captured[name]) for name in names)


def test_training_breaks_the_symmetry(backbone: AnimateDiffBackbone) -> None:
    """Zero projections and a zero-initialised encoder are not a dead start."""
    side = UNetSideNetwork.from_backbone(backbone)
    optimizer = torch.optim.AdamW(side.parameters(), lr=1e-2)
    inputs = model_inputs()
    for _ in range(3):
        loss = backbone.predict(*inputs[:3], side(*inputs).residuals).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert side.pose_encoder.conv_in.weight.grad.abs().max() > 0
    shuffled = (*inputs[:3], inputs[3].flip(0))
    assert not torch.equal(
        side(*inputs).residuals.points["mid"], side(*shuffled).residuals.points["mid"]
    )


def test_seed_decides_the_new_weights_and_nothing_else(backbone: AnimateDiffBackbone) -> None:
    torch.manual_seed(5)
    first = UNetSideNetwork.from_backbone(backbone, seed=3).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    again = UNetSideNetwork.from_backbone(backbone, seed=3).state_dict()
    other = UNetSideNetwork.from_backbone(backbone, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed
    assert all(name.startswith("pose_encoder.") for name in changed)


# Injection points and taps.


def test_only_declared_points_are_injected_and_tapped(backbone: AnimateDiffBackbone) -> None:
    side = awakened(
        UNetSideNetwork.from_backbone(backbone, injection=["mid", "down_1"], taps=["mid"])
    )
    inputs = model_inputs(3, 7, 9)
    output = side(*inputs)
    assert list(output.residuals.points) == list(side.projections) == ["down_1", "mid"]
    assert list(output.taps) == list(side.tap_points) == ["mid"]
    assert torch.equal(side.projections["mid"](output.taps["mid"]), output.residuals.points["mid"])
    controlled, prior = backbone.predict_with_prior(*inputs[:3], output.residuals)
    assert torch.equal(controlled, backbone.predict(*inputs[:3], output.residuals))
    assert not torch.equal(controlled, prior)


def test_unknown_points_are_refused_with_the_known_ones(backbone: AnimateDiffBackbone) -> None:
    for options, message in [
        ({"injection": ["down_4"]}, "injection names down_4, but there is down_0, .*, down_3, mid"),
        ({"injection": []}, "injection names no point, there is down_0, .*, down_3, mid"),
        ({"taps": ["up_1"]}, "taps names up_1, but there is down_0"),
        ({"injection": ["mid"], "taps": ["down_1"]}, "taps names down_1, but there is mid"),
    ]:
        with pytest.raises(UserError, match=message):
            UNetSideNetwork.from_backbone(backbone, **options)


# Poses.


@pytest.mark.parametrize("halvings", [0, 2, 3])
def test_pose_encoder_reaches_the_latent_grid(halvings: int) -> None:
    frames = torch.rand(2, 3, 24, 40)
    encoded = PoseEncoder(12, pose_widths(halvings), "normal")(frames)
    assert encoded.shape == (2, 12, 24 >> halvings, 40 >> halvings)
    assert encoded.std() > 0
    assert PoseEncoder(12, pose_widths(halvings), "zero")(frames).count_nonzero() == 0


def test_pose_of_a_frame_enters_at_that_frame(backbone: AnimateDiffBackbone) -> None:
    side = awakened(UNetSideNetwork.from_backbone(backbone, taps=["down_0"])).eval()
    noisy, timesteps, text, poses = model_inputs(frames=4)
    changed = poses.clone()
    changed[1, 2] = 0
    before, after = (
        rearrange(side(noisy, timesteps, text, p).taps["down_0"], "(b f) ... -> b f ...", b=2)
        for p in (poses, changed)
    )
    differs = (before != after).flatten(2).any(dim=2)
    assert differs.tolist() == [[False] * 4, [False, False, True, False]]


@pytest.mark.parametrize("wrong", [(2, 4, 3, 32, 32), (2, 3, 3, 16, 32), (1, 3, 3, 32, 32)])
def test_pose_frames_that_do_not_fit_are_refused(
    backbone: AnimateDiffBackbone, wrong: tuple[int, ...]
) -> None:
    side = UNetSideNetwork.from_backbone(backbone)
    with pytest.raises(UserError, match=r"do not fit latents .* expected \(2, 3, 3, 32, 32\)"):
        side(*model_inputs()[:3], torch.zeros(wrong))


# Training and saving.


def test_gradient_checkpointing_changes_no_gradient(backbone: AnimateDiffBackbone) -> None:
    inputs = model_inputs(3, 7, 9)
    gradients = []
    for checkpointing in (False, True):
        side = awakened(UNetSideNetwork.from_backbone(backbone, taps=["down_2"]))
        if checkpointing:
            side.enable_gradient_checkpointing()
            assert side.is_gradient_checkpointing
        output = side(*inputs)
        controlled, _ = backbone.predict_with_prior(*inputs[:3], output.residuals)
        (controlled.square().mean() + output.taps["down_2"].square().mean()).backward()
        gradients.append([p.grad for p in side.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-7)


def test_folder_loads_as_it_was_saved_without_a_backbone(
    backbone: AnimateDiffBackbone, tmp_path: Path
) -> None:
    side = awakened(
        UNetSideNetwork.from_backbone(
            backbone, injection=["down_1", "mid"], taps=["mid"], pose_init="normal"
        )
    ).eval()
    side.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    loaded = load_side_network(tmp_path)
    assert loaded.state_dict().keys() == side.state_dict().keys()
    assert same_outputs(side, loaded)
    assert list(loaded.tap_points) == ["mid"]
    loaded.check_backbone(backbone)


@pytest.mark.parametrize("damage", ["nothing", "class", "weights", "json"])
def test_unloadable_folders_are_refused_in_one_line(
    backbone: AnimateDiffBackbone, tmp_path: Path, damage: str
) -> None:
    expected = {
        "nothing": "no saved model there",
        "class": "holds a UNetMotionModel, expected one of UNetSideNetwork",
        "weights": "not a loadable UNetSideNetwork",
        "json": "no saved model there",
    }
    if damage != "nothing":
        UNetSideNetwork.from_backbone(backbone).save_pretrained(tmp_path)
    if damage == "class":
        backbone.main_network.save_pretrained(tmp_path)
    if damage == "weights":
        weights = tmp_path / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    if damage == "json":
        (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=expected[damage]) as caught:
        load_side_network(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_backbone_is_refused(backbone: AnimateDiffBackbone) -> None:
    side = UNetSideNetwork.from_backbone(backbone)
    side.check_backbone(tiny_backbone())
    with pytest.raises(UserError, match=r"was made for another backbone") as caught:
        side.check_backbone(tiny_backbone(seed=1))
    assert "\n" not in str(caught.value)


def test_a_normal_start_shows_the_side_network_the_poses_at_once() -> None:
    """Torch's own initialisation, on the same drawn limb, leaves almost nothing of it."""
    frames = torch.zeros(1, 3, 64, 64)
    frames[:, :, 10:50, 30:33] = 1.0
    torch.manual_seed(0)
    visible = PoseEncoder(32, pose_widths(2), "normal")
    faint = PoseEncoder(32, pose_widths(2), "zero")
    faint.conv_out.reset_parameters()
    assert visible(frames).std() > 5 * faint(frames).std(dim=(-1, -2)).mean()
