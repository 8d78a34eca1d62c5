"""The losses against METHOD's formulas, written out by hand on a tiny model.

B batch, F frames, C latent channels, h w latent cells.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.decoder import LisaDecoder, TapDecoders
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.losses import (
    Conditions,
    LisaObjective,
    NoisedLatents,
    aligned_clips,
    explained_share,
    log_values,
    noise_latents,
    scalars,
    training_losses,
)
from tests.tiny import awakened, epsilon_scheduler, model_inputs, tiny_backbone

TAP = "down_2"
WEIGHT = 0.3


@pytest.fixture(scope="module", params=["v_prediction", "epsilon"])
def backbone(request: pytest.FixtureRequest) -> AnimateDiffBackbone:
    return tiny_backbone(scheduler=epsilon_scheduler() if request.param == "epsilon" else None)


def side_network(backbone: AnimateDiffBackbone) -> UNetSideNetwork:
    return awakened(UNetSideNetwork.from_backbone(backbone, taps=[TAP]))


def lisa_objective(backbone: AnimateDiffBackbone) -> LisaObjective:
    point = backbone.injection_points[TAP]
    torch.manual_seed(5)
    decoder = LisaDecoder(point.channels, backbone.latent_channels, point.halvings)
    torch.nn.init.normal_(decoder.conv_out.weight, std=0.1)
    return LisaObjective(TapDecoders({TAP: decoder}), [TAP], WEIGHT)


def batch(backbone: AnimateDiffBackbone) -> tuple[NoisedLatents, Conditions]:
    clean, timesteps, text, poses = model_inputs(frames=3, height=7, width=6)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 1.0]])
    return noise_latents(backbone, clean, noise, timesteps), Conditions(text, poses, weights)


def test_noised_latents_and_target(backbone: AnimateDiffBackbone) -> None:
    clean, timesteps, _, _ = model_inputs()
    noise = torch.randn_like(clean)
    noised = noise_latents(backbone, clean.half(), noise, timesteps)
    level = backbone.scheduler.alphas_cumprod[timesteps].double().view(-1, 1, 1, 1, 1)
    a, s = level.sqrt(), (1 - level).sqrt()
    clean = clean.half().double()
    torch.testing.assert_close(noised.noisy, (a * clean + s * noise).float())
    target = noise if backbone.prediction_type == "epsilon" else (a * noise - s * clean).float()
    torch.testing.assert_close(noised.target, target)


def test_lisa_losses_are_those_of_the_method(backbone: AnimateDiffBackbone) -> None:
    side, lisa = side_network(backbone), lisa_objective(backbone)
    noised, conditions = batch(backbone)
    losses = training_losses(backbone, side, noised, conditions, lisa)

    inputs = (noised.noisy, noised.timesteps, conditions.text)
    with torch.no_grad():
        output = side(*inputs, conditions.pose_frames)
        controlled = backbone.predict(*inputs, output.residuals)
        prior = backbone.predict(*inputs)
        predicted = lisa.decoder(output.taps, noised.timesteps, 3, (7, 6))[TAP]
    main = ((controlled - noised.target) ** 2).mean()
    frames = ((predicted - (noised.target - prior)) ** 2).mean(dim=(1, 3, 4))
    alignment = (conditions.frame_weights * frames).sum() / conditions.frame_weights.sum()
    prior_loss = ((prior - noised.target) ** 2).mean()

    assert losses.alignment is not None and losses.prior is not None
    torch.testing.assert_close(losses.main, main)
    torch.testing.assert_close(losses.alignment.loss, alignment)
    torch.testing.assert_close(losses.total, main + WEIGHT * alignment)
    torch.testing.assert_close(losses.prior, prior_loss)
    seen = conditions.frame_weights > 0
    torch.testing.assert_close(losses.alignment.per_frame[seen], frames[seen])


def test_plain_loss_is_the_main_loss_without_a_prior_pass(
    backbone: AnimateDiffBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, lisa = side_network(backbone), lisa_objective(backbone)
    noised, conditions = batch(backbone)
    with_prior = training_losses(backbone, side, noised, conditions, lisa)

    calls: list[Any] = []
    handle = backbone.main_network.register_forward_pre_hook(lambda *_: calls.append(1))
    monkeypatch.delattr(AnimateDiffBackbone, "predict_with_prior")
    plain = training_losses(backbone, side, noised, conditions, None)
    handle.remove()
    assert len(calls) == 1
    assert plain.alignment is None and plain.prior is None
    torch.testing.assert_close(plain.total.detach(), with_prior.main)


def test_alignment_trains_the_tapped_encoder_even_through_closed_projections(
    backbone: AnimateDiffBackbone,
) -> None:
    """At step 0 the main loss reaches nothing behind the zero projections; alignment does."""
    noised, conditions = batch(backbone)

    def gradient(lisa: LisaObjective | None) -> Tensor:
        side = UNetSideNetwork.from_backbone(backbone, taps=[TAP], pose_init="normal")
        training_losses(backbone, side, noised, conditions, lisa).total.backward()
        gradient = side.conv_in.weight.grad
        assert gradient is not None
        return gradient

    assert gradient(None).abs().max() == 0
    assert gradient(lisa_objective(backbone)).abs().max() > 0


def test_the_backbone_gets_no_gradient(backbone: AnimateDiffBackbone) -> None:
    noised, conditions = batch(backbone)
    for lisa in (None, lisa_objective(backbone)):
        side = side_network(backbone)
        training_losses(backbone, side, noised, conditions, lisa).total.backward()
        for module in (backbone.main_network, backbone.vae, backbone.text_encoder):
            assert all(parameter.grad is None for parameter in module.parameters())
        assert all(p.grad is not None for p in side.projections.parameters())


def test_logged_values(backbone: AnimateDiffBackbone) -> None:
    noised, conditions = batch(backbone)
    lisa = lisa_objective(backbone)
    losses = training_losses(backbone, side_network(backbone), noised, conditions, lisa)
    assert losses.alignment is not None and losses.prior is not None
    values = log_values(scalars(losses), lisa)
    assert values["alignment_weight"] == WEIGHT
    assert values["loss"] == losses.total.item() and values["main"] == losses.main.item()
    assert values["ratio"] == pytest.approx(losses.alignment.ratio.item())
    assert values["explained"] == explained_share(losses.main.item(), losses.prior.item())
    frames = losses.alignment.per_frame.mean(dim=0)
    assert values["frame_shares"] == pytest.approx((frames / frames.sum()).tolist())
    plain = training_losses(backbone, side_network(backbone), noised, conditions, None)
    assert set(log_values(scalars(plain), None)) == {"loss", "main"}


def test_explained_share() -> None:
    assert explained_share(0.5, 2.0) == 0.75
    assert explained_share(2.0, 2.0) == 0.0
    assert explained_share(3.0, 2.0) < 0


# Some clips, several taps, weights by timestep.


def by_hand(
    backbone: AnimateDiffBackbone, lisa: LisaObjective, clips: list[int], taps: list[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors (B,) of the controlled prediction, (P,) of the prior, (P, F) of each tap's."""
    side = awakened(UNetSideNetwork.from_backbone(backbone, taps=taps))
    noised, conditions = batch(backbone)
    inputs = (noised.noisy, noised.timesteps, conditions.text)
    with torch.no_grad():
        output = side(*inputs, conditions.pose_frames)
        controlled = backbone.predict(*inputs, output.residuals)
        prior = backbone.predict(*inputs)
        predicted = lisa.decoder(output.taps, noised.timesteps, 3, (7, 6))
    target = noised.target - prior
    errors = [((predicted[tap] - target) ** 2).mean(dim=(1, 3, 4))[clips] for tap in taps]
    clip = (1, 2, 3, 4)
    return (
        ((controlled - noised.target) ** 2).mean(dim=clip),
        ((prior - noised.target) ** 2).mean(dim=clip)[clips],
        torch.stack(errors),
    )


def two_taps(backbone: AnimateDiffBackbone) -> TapDecoders:
    torch.manual_seed(5)
    decoders = TapDecoders()
    for name in ("down_1", "mid"):
        point = backbone.injection_points[name]
        decoders[name] = LisaDecoder(point.channels, backbone.latent_channels, point.halvings)
        torch.nn.init.normal_(decoders[name].conv_out.weight, std=0.1)
    return decoders


def test_part_of_a_batch_has_the_alignment_loss_of_its_clips(
    backbone: AnimateDiffBackbone,
) -> None:
    lisa = replace(lisa_objective(backbone), fraction=0.5)
    noised, conditions = batch(backbone)
    losses = training_losses(backbone, side_network(backbone), noised, conditions, lisa)
    controlled, prior, errors = by_hand(backbone, lisa, [0], [TAP])
    weights = conditions.frame_weights[:1]
    alignment = (weights * errors[0]).sum() / weights.sum()
    assert losses.alignment is not None and losses.alignment.per_frame.shape == (1, 3)
    torch.testing.assert_close(losses.main, controlled.mean())
    torch.testing.assert_close(losses.alignment.loss, alignment)
    torch.testing.assert_close(losses.total, controlled.mean() + WEIGHT * alignment)
    values = log_values(scalars(losses), lisa)
    share = explained_share(controlled[0].item(), prior[0].item())
    assert values["explained"] == pytest.approx(share, rel=1e-4)


def test_parts_of_a_split_batch_are_those_of_the_whole() -> None:
    """Of 8 clips in one pass, or 4 and 4 in two."""
    device = torch.device("cpu")
    whole = aligned_clips(8, 0.5, device)
    part = aligned_clips(4, 0.5, device)
    assert whole is not None and part is not None
    assert whole.tolist() == [*part.tolist(), *(part + 4).tolist()] == [0, 2, 4, 6]
    assert aligned_clips(8, 1.0, device) is None


def test_several_taps_are_averaged_and_logged_apart(backbone: AnimateDiffBackbone) -> None:
    taps = ["down_1", "mid"]
    lisa = LisaObjective(two_taps(backbone), taps, WEIGHT)
    side = awakened(UNetSideNetwork.from_backbone(backbone, taps=taps))
    noised, conditions = batch(backbone)
    losses = training_losses(backbone, side, noised, conditions, lisa)
    _, _, errors = by_hand(backbone, lisa, [0, 1], taps)
    weights = conditions.frame_weights
    expected = [(weights * each).sum() / weights.sum() for each in errors]
    assert losses.alignment is not None and losses.taps is not None
    torch.testing.assert_close(losses.taps, torch.stack(expected))
    torch.testing.assert_close(losses.alignment.loss, sum(expected) / 2)
    values = log_values(scalars(losses), lisa)
    for tap, each in zip(taps, expected, strict=True):
        assert values[f"alignment/{tap}"] == pytest.approx(each.item(), rel=1e-5)
    assert values["ratio"] == pytest.approx((values["ratio/down_1"] + values["ratio/mid"]) / 2)
    losses.total.backward()
    for decoder in lisa.decoder.children():
        assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_timestep_weights_multiply_the_errors_of_their_clips(
    backbone: AnimateDiffBackbone, fraction: float
) -> None:
    lisa = replace(lisa_objective(backbone), fraction=fraction)
    clips = [0, 1] if fraction == 1 else [0]
    noised, conditions = batch(backbone)
    main, aligned = torch.tensor([0.25, 3.0]), torch.tensor([2.0, 0.5])
    noised = replace(noised, main_weights=main, alignment_weights=aligned)
    losses = training_losses(backbone, side_network(backbone), noised, conditions, lisa)
    controlled, prior, errors = by_hand(backbone, lisa, clips, [TAP])
    weights = conditions.frame_weights[clips]
    scaled = errors[0] * aligned[clips, None]
    assert losses.alignment is not None
    torch.testing.assert_close(losses.main, (main * controlled).mean())
    torch.testing.assert_close(losses.alignment.loss, (weights * scaled).sum() / weights.sum())
    torch.testing.assert_close(losses.prior, (main[clips] * prior).mean())
    torch.testing.assert_close(losses.controlled, (main[clips] * controlled[clips]).mean())
    plain = training_losses(backbone, side_network(backbone), noised, conditions, None)
    assert torch.equal(plain.main, losses.main)


def test_clips_that_weigh_nothing_are_logged_as_such(backbone: AnimateDiffBackbone) -> None:
    lisa = lisa_objective(backbone)
    noised, conditions = batch(backbone)
    noised = replace(noised, main_weights=torch.zeros(2), alignment_weights=torch.zeros(2))
    losses = training_losses(backbone, side_network(backbone), noised, conditions, lisa)
    values = log_values(scalars(losses), lisa)
    assert values["loss"] == values["explained"] == values["ratio"] == 0
    assert values["frame_shares"] == [0, 0, 0]
