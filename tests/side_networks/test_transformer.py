"""The side network of video transformers on tiny Wan backbones."""

from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lisa_video.backbones import load_side_network
from lisa_video.backbones.wan import WanBackbone, WanSideNetwork
from lisa_video.decoder import LisaDecoder, TapDecoders, new_decoder
from lisa_video.errors import UserError
from lisa_video.injection import Injection
from lisa_video.side_networks.transformer import kept_channels, narrowed
from lisa_video.training.losses import Conditions, LisaObjective, noise_latents, training_losses
from tests.tiny import awakened
from tests.tiny_wan import (
    LATENT_CHANNELS,
    TEXT_WIDTH,
    TOKENS,
    VAE_FACTOR,
    WIDTH,
    tiny_wan,
    wan_inputs,
)


@pytest.fixture(scope="module")
def backbone() -> WanBackbone:
    return tiny_wan()


def same_outputs(backbone: WanBackbone, one: WanSideNetwork, other: WanSideNetwork) -> bool:
    inputs = wan_inputs()
    first, second = (backbone.side_output(side, *inputs) for side in (one, other))
    return all(
        torch.equal(first.residuals.points[name], second.residuals.points[name])
        for name in first.residuals.points
    )


# Start: copies of the matching blocks.


@pytest.mark.parametrize(
    ("injection", "indices"),
    [
        ({"stride": 2}, [0, 2, 4]),
        ({"even": 2}, [2, 5]),
        ([1, "block_4"], [1, 4]),
        ("all", range(6)),
    ],
)
def test_each_block_is_a_copy_of_the_backbones_at_its_place(
    backbone: WanBackbone, injection: Injection, indices: list[int]
) -> None:
    side = WanSideNetwork.from_backbone(backbone, injection=injection)
    assert list(side.blocks) == [f"block_{index}" for index in indices]
    for index in indices:
        ours = side.blocks[f"block_{index}"].state_dict()
        theirs = backbone.blocks[index].state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not {p.data_ptr() for p in side.parameters()} & {
        p.data_ptr() for p in backbone.main_network.parameters()
    }
    own = {name.split(".")[0] for name, _ in side.named_parameters()}
    assert own == {"blocks", "pose_encoder", "projections"}


def test_narrow_copies_keep_whole_heads(backbone: WanBackbone) -> None:
    side = WanSideNetwork.from_backbone(backbone, hidden_size=16)
    channels = [*range(8), *range(16, 24)]  # heads 0 and 2 of four
    assert kept_channels(WIDTH, 16, 8) == channels
    theirs, ours = backbone.blocks[3], side.blocks["block_3"]
    query = theirs.attn1.to_q.weight[channels][:, channels]
    assert torch.equal(ours.attn1.to_q.weight, query)
    assert torch.equal(ours.scale_shift_table, theirs.scale_shift_table[..., channels])
    rows = [index * 2 for index in range(20)]  # half of the 40 feed-forward units
    assert torch.equal(
        ours.ffn.net[0].proj.weight, theirs.ffn.net[0].proj.weight[rows][:, channels]
    )
    assert torch.equal(ours.ffn.net[2].weight, theirs.ffn.net[2].weight[channels][:, rows])
    assert side.projections["block_3"].weight.shape == (WIDTH, 16)
    inputs = wan_inputs()
    output = backbone.side_output(awakened(side), *inputs)
    assert output.residuals.points["block_3"].shape == (2, 2 * 3 * 4, WIDTH)
    assert backbone.predict(*inputs[:3], output.residuals).shape == inputs[0].shape


def test_narrowing_takes_the_same_channels_of_every_part() -> None:
    weight = torch.arange(12.0)[:, None].expand(12, 4)
    kept = narrowed(weight, torch.Size((6, 2)), width=4, channels=[1, 3])
    assert kept[:, 0].tolist() == [1, 3, 5, 7, 9, 11]
    same = torch.rand(12, 4)
    assert narrowed(same, same.shape, width=4, channels=range(4)) is same


def test_full_width_by_name_is_the_default(backbone: WanBackbone) -> None:
    one, other = (
        awakened(WanSideNetwork.from_backbone(backbone, hidden_size=size)) for size in (None, WIDTH)
    )
    assert same_outputs(backbone, one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"injection": [6]}, "names index 6, but there is block_0, .*, block_5"),
        ({"injection": ["block_9"]}, "names block_9, but"),
        ({"injection": {"stride": 0}}, "give one of stride and even, between 1 and 6"),
        ({"injection": {"even": 7}}, "give one of stride and even, between 1 and 6"),
        ({"injection": {"every": 2}}, "give one of stride and even"),
        ({"injection": []}, "names no point"),
        (
            {"injection": {"even": 2}, "taps": ["block_0"]},
            "taps names block_0, but there is block_2",
        ),
        ({"hidden_size": 12}, "hidden_size=12: must be a multiple of 8"),
        ({"hidden_size": 40}, "hidden_size=40: must be a multiple of 8, .* up to 32"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    backbone: WanBackbone, settings: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        WanSideNetwork.from_backbone(backbone, **settings)
    assert "\n" not in str(caught.value)


def test_same_seed_same_network_and_the_random_state_stays(backbone: WanBackbone) -> None:
    before = torch.get_rng_state()
    one, same, other = (
        WanSideNetwork.from_backbone(backbone, pose_init="normal", seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    weights = [side.pose_encoder.conv_in.weight for side in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# What it computes.


def test_side_network_sees_tokens_text_time_and_poses(backbone: WanBackbone) -> None:
    side = awakened(WanSideNetwork.from_backbone(backbone))
    inputs = wan_inputs()
    base = backbone.side_output(side, *inputs).residuals.points["block_5"]
    for place in range(4):
        changed = list(inputs)
        changed[place] = changed[place] * 0.5
        other = backbone.side_output(side, *changed).residuals.points["block_5"]
        assert (other - base).abs().max() > 1e-4


def test_taps_are_the_inputs_of_the_zero_projections(backbone: WanBackbone) -> None:
    side = WanSideNetwork.from_backbone(backbone, taps=["block_2"], hidden_size=16)
    inputs_seen: list[Tensor] = []
    side.projections["block_2"].register_forward_hook(lambda *call: inputs_seen.append(call[1][0]))
    output = backbone.side_output(side, *wan_inputs())
    assert list(output.taps) == ["block_2"]
    assert output.taps["block_2"] is inputs_seen[0]
    assert side.tap_points["block_2"].channels == 16


def test_pose_frames_that_do_not_fit_are_refused(backbone: WanBackbone) -> None:
    side = WanSideNetwork.from_backbone(backbone)
    *latents, poses = wan_inputs(9)
    with pytest.raises(UserError, match=r"they make 2 x 24 tokens, and it has 2 x 36"):
        backbone.side_output(side, *latents, poses[:, :5])


def test_folder_loads_as_it_was_saved(backbone: WanBackbone, tmp_path: Path) -> None:
    side = awakened(WanSideNetwork.from_backbone(backbone, injection={"even": 2}, hidden_size=16))
    side.save_pretrained(tmp_path)
    loaded = load_side_network(tmp_path)
    assert isinstance(loaded, WanSideNetwork)
    assert same_outputs(backbone, side, loaded)
    loaded.check_backbone(backbone)


# LISA on tokens.


def test_decoder_undoes_the_patches() -> None:
    """Each token decides its own patch of the latent, in its own frame, row and column."""
    decoder = LisaDecoder(6, 4, upsample_steps=1)
    torch.manual_seed(0)
    nn.init.normal_(decoder.conv_out.weight)
    tokens = torch.randn(1, 2 * 6 * 7, 6)
    base = decoder(tokens, torch.tensor([3]), 2, (12, 14))
    assert base.shape == (1, 4, 2, 12, 14)
    frame, row, column = 1, 2, 4
    changed = tokens.clone()
    changed[0, (frame * 6 + row) * 7 + column] += 5
    touched = (decoder(changed, torch.tensor([3]), 2, (12, 14)) != base).any(dim=1)[0].nonzero()
    assert set(touched[:, 0].tolist()) == {frame}
    middle = touched[:, 1:].float().mean(dim=0)
    torch.testing.assert_close(middle, torch.tensor([2 * row + 0.5, 2 * column + 0.5]))


def test_tokens_and_cells_of_one_feature_decode_alike() -> None:
    decoder = LisaDecoder(6, 4, upsample_steps=1)
    nn.init.normal_(decoder.conv_out.weight)
    cells = torch.randn(4, 6, 3, 5)
    tokens = rearrange(cells, "(b f) c h w -> b (f h w) c", f=2)
    times = torch.tensor([3, 700])
    assert torch.equal(decoder(cells, times, 2), decoder(tokens, times, 2, (6, 10)))


def test_token_decoders_are_bounded_and_those_of_cells_are_not(backbone: WanBackbone) -> None:
    from lisa_video.injection import InjectionPoint

    wide = new_decoder(InjectionPoint("block_0", 1536, 1, tokens=True), 16)
    assert wide.convs[0].weight.shape == (320, 1536, 1, 1)
    authors = new_decoder(InjectionPoint("down_5", 1280, 1), 4)
    assert authors.convs[0].weight.shape == (640, 1280, 1, 1)


# The same loss however it is computed.


def lisa_loss(
    backbone: WanBackbone, side: nn.Module, taps: WanSideNetwork
) -> tuple[Tensor, list[Tensor | None]]:
    """Loss of one LISA step and the gradients of the side network."""
    torch.manual_seed(5)
    decoder = new_decoder(taps.tap_points["block_2"], LATENT_CHANNELS)
    nn.init.normal_(decoder.conv_out.weight, std=0.1)
    latents, noise = torch.randn(2, 2, LATENT_CHANNELS, 3, 6, 8)
    noised = noise_latents(backbone, latents, noise, torch.tensor([300.0, 900.0]))
    conditions = Conditions(
        text=torch.randn(2, TOKENS, TEXT_WIDTH).to(backbone.dtype),
        pose_frames=torch.rand(2, 9, 3, 6 * VAE_FACTOR, 8 * VAE_FACTOR),
        frame_weights=backbone.latent_frame_means(torch.rand(2, 9)),
    )
    lisa = LisaObjective(TapDecoders({"block_2": decoder}), ["block_2"], 0.2)
    terms = training_losses(backbone, side, noised, conditions, lisa)
    terms.total.backward()
    return terms.total.detach(), [parameter.grad for parameter in side.parameters()]


def prepared() -> tuple[WanBackbone, WanSideNetwork]:
    backbone = tiny_wan()
    side = WanSideNetwork.from_backbone(backbone, injection={"even": 2}, taps=["block_2"])
    return backbone, awakened(side)


def test_lisa_loss_is_that_of_its_formula() -> None:
    backbone, side = prepared()
    loss, gradients = lisa_loss(backbone, side, side)
    torch.manual_seed(5)
    decoder = new_decoder(side.tap_points["block_2"], LATENT_CHANNELS)
    nn.init.normal_(decoder.conv_out.weight, std=0.1)
    latents, noise = torch.randn(2, 2, LATENT_CHANNELS, 3, 6, 8)
    u = torch.tensor([0.3, 0.9]).view(2, 1, 1, 1, 1)
    noisy, target, times = (1 - u) * latents + u * noise, noise - latents, u.flatten() * 1000
    text, poses = torch.randn(2, TOKENS, TEXT_WIDTH), torch.rand(2, 9, 3, 24, 32)
    weights = torch.rand(2, 9)
    weights = torch.cat([weights[:, :1], weights[:, 1:].unflatten(1, (2, 4)).mean(-1)], dim=1)
    output = backbone.side_output(side, noisy, times, text, poses)
    controlled = backbone.predict(noisy, times, text, output.residuals)
    likelihood = target - backbone.predict(noisy, times, text)
    errors = decoder(output.taps["block_2"], times, 3, (6, 8)) - likelihood
    per_frame = errors.square().mean(dim=(1, 3, 4))
    expected = mse_loss(controlled, target) + 0.2 * (weights * per_frame).sum() / weights.sum()
    torch.testing.assert_close(loss, expected.detach())
    assert all(gradient is not None for gradient in gradients)


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = lisa_loss(*(pair := prepared()), pair[1])
    backbone, side = prepared()
    backbone.enable_gradient_checkpointing()
    side.enable_gradient_checkpointing()
    loss, gradients = lisa_loss(backbone, side, side)
    assert torch.equal(loss, plain[0])
    for one, other in zip(gradients, plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_bf16_gives_the_loss_within_a_hundredth() -> None:
    expected, _ = lisa_loss(*(pair := prepared()), pair[1])
    backbone, side = prepared()
    backbone.to(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = lisa_loss(backbone, side, side)
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)


def test_compiled_gives_the_same_loss() -> None:
    """Blocks compiled in place, as `compile_repeated_blocks` does; aot_eager needs no compiler."""
    expected, plain = lisa_loss(*(pair := prepared()), pair[1])
    backbone, side = prepared()
    for block in (*backbone.blocks, *side.blocks.values()):
        block.compile(backend="aot_eager")
    loss, gradients = lisa_loss(backbone, side, side)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for one, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
