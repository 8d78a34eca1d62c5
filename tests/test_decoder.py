"""The LISA decoder against the authors' formulation, written out by hand from its description.

B batch, F frames, C feature channels, h w feature cells, H W latent cells.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_video.alignment import alignment_loss, likelihood_target
from lisa_video.decoder import LisaDecoder, TapDecoders, decoder_folders, narrowed_channels


def build_decoder(in_channels: int, upsample_steps: int, seed: int = 0) -> LisaDecoder:
    """A decoder whose last convolution is random too, so that its output says something."""
    torch.manual_seed(seed)
    decoder = LisaDecoder(in_channels, latent_channels=4, upsample_steps=upsample_steps)
    nn.init.normal_(decoder.conv_out.weight, std=0.05)
    nn.init.normal_(decoder.conv_out.bias, std=0.05)
    return decoder.eval()


def random_tensor(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def authors_image_decoder(
    weights: dict[str, Tensor], upsample_steps: int, feature: Tensor, timesteps: Tensor
) -> Tensor:
    """The authors' decoder for images: feature (B, C, h, w), timesteps (B,) -> (B, 4, H, W)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    angles = timesteps.float()[:, None] * frequencies[None]
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    weight, bias = weights["time_projection.weight"], weights["time_projection.bias"]
    embedding = functional.silu(embedding @ weight.T + bias)
    hidden = feature + embedding[:, :, None, None]

    if upsample_steps == 0:
        weight, bias = weights["convs.0.weight"], weights["convs.0.bias"]
        hidden = functional.silu(functional.conv2d(hidden, weight, bias, padding=1))
    for step in range(upsample_steps):
        weight, bias = weights[f"convs.{step}.weight"], weights[f"convs.{step}.bias"]
        padding = 0 if step == 0 and hidden.shape[1] >= 512 else 1
        hidden = functional.silu(functional.conv2d(hidden, weight, bias, padding=padding))
        hidden = hidden.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return functional.conv2d(
        hidden, weights["conv_out.weight"], weights["conv_out.bias"], padding=1
    )


@pytest.mark.parametrize(
    ("in_channels", "upsample_steps"), [(640, 1), (1280, 3), (320, 0), (128, 1), (96, 2)]
)
def test_decoder_and_loss_equal_the_authors(in_channels: int, upsample_steps: int) -> None:
    batch, frames, height, width = 2, 3, 6, 4
    decoder = build_decoder(in_channels, upsample_steps)
    feature = random_tensor(batch * frames, in_channels, height, width)
    timesteps = torch.tensor([17, 903])
    prediction = decoder(feature, timesteps, frames)

    clips = feature.view(batch, frames, in_channels, height, width)
    expected = torch.stack(
        [
            authors_image_decoder(
                dict(decoder.state_dict()), upsample_steps, clips[:, frame], timesteps
            )
            for frame in range(frames)
        ],
        dim=2,
    )
    scale = 2**upsample_steps
    assert prediction.shape == (batch, 4, frames, height * scale, width * scale)
    torch.testing.assert_close(prediction, expected, atol=1e-6, rtol=0)

    target, prior = random_tensor(*prediction.shape, seed=2), random_tensor(*prediction.shape)
    authors_loss = ((expected - (target - prior)) ** 2).mean()
    loss = alignment_loss(prediction, likelihood_target(target, prior)).loss
    torch.testing.assert_close(loss, authors_loss, atol=1e-6, rtol=0)


def test_down_5_has_the_published_sizes() -> None:
    decoder = LisaDecoder(in_channels=640, latent_channels=4, upsample_steps=1)
    shapes = {name: tuple(weight.shape) for name, weight in decoder.state_dict().items()}
    assert shapes == {
        "time_projection.weight": (640, 256),
        "time_projection.bias": (640,),
        "convs.0.weight": (320, 640, 1, 1),
        "convs.0.bias": (320,),
        "conv_out.weight": (4, 320, 3, 3),
        "conv_out.bias": (4,),
    }
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    assert parameters == 381_124  # 364.2 M -> 364.6 M as published
    assert decoder(random_tensor(1, 640, 32, 32), torch.tensor([5]), 1).shape == (1, 4, 1, 64, 64)


def test_channels_halve_down_to_64_and_never_grow() -> None:
    assert [narrowed_channels(c) for c in (1280, 640, 128, 96)] == [640, 320, 64, 64]
    assert [narrowed_channels(c) for c in (64, 32)] == [64, 32]


@pytest.mark.parametrize("upsample_steps", [0, 1])
def test_new_decoder_predicts_zero_and_learns(upsample_steps: int) -> None:
    decoder = LisaDecoder(in_channels=32, latent_channels=4, upsample_steps=upsample_steps)
    prediction = decoder(random_tensor(3, 32, 4, 4), torch.tensor([500]), 3)
    assert (prediction == 0).all()
    alignment_loss(prediction, random_tensor(*prediction.shape)).loss.backward()
    assert decoder.conv_out.weight.grad is not None and decoder.conv_out.weight.grad.any()


def test_each_clip_keeps_its_own_timestep_and_frames() -> None:
    decoder = build_decoder(in_channels=32, upsample_steps=1)
    feature = random_tensor(2 * 5, 32, 4, 4)
    together = decoder(feature, torch.tensor([10, 700]), 5)
    first = decoder(feature[:5], torch.tensor([10]), 5)
    second = decoder(feature[5:], torch.tensor([700]), 5)
    torch.testing.assert_close(together, torch.cat([first, second]))
    assert not torch.allclose(second, decoder(feature[5:], torch.tensor([10]), 5))


@pytest.mark.parametrize("size", [(17, 9), (18, 10), (20, 12)])
def test_odd_latents_are_reached_by_the_way_the_unet_came_down(size: tuple[int, int]) -> None:
    """Two stride-2 convolutions round 17 up to 9 and 5; the decoder goes back by 5, 9, 17.

    That is the doubled way, 5, 10, 20, wherever no convolution sees the surplus cells.
    """
    feature = random_tensor(2, 32, *(-(-side // 4) for side in size))
    decoder = build_decoder(in_channels=32, upsample_steps=2)
    prediction = decoder(feature, torch.tensor([300]), 2, size)
    assert prediction.shape == (1, 4, 2, *size)
    doubled = decoder(feature, torch.tensor([300]), 2)
    inner = (..., slice(0, size[0] - 4), slice(0, size[1] - 4))
    torch.testing.assert_close(prediction[inner], doubled[inner])


def test_saves_and_loads_as_diffusers_does(tmp_path: Path) -> None:
    decoder = build_decoder(in_channels=96, upsample_steps=2)
    decoder.save_pretrained(tmp_path / "decoder")
    names = {path.name for path in (tmp_path / "decoder").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}

    loaded = LisaDecoder.from_pretrained(tmp_path / "decoder")
    assert (loaded.config.in_channels, loaded.config.latent_channels) == (96, 4)
    assert loaded.config.upsample_steps == 2
    feature, timesteps = random_tensor(4, 96, 3, 5), torch.tensor([1, 999])
    assert torch.equal(loaded(feature, timesteps, 2), decoder(feature, timesteps, 2))


def test_half_precision_features_stay_half_precision() -> None:
    decoder = build_decoder(in_channels=32, upsample_steps=1).to(torch.bfloat16)
    feature = random_tensor(2, 32, 4, 4).to(torch.bfloat16)
    assert decoder(feature, torch.tensor([7]), 2).dtype == torch.bfloat16


def test_decoders_of_taps_predict_apart_and_come_back_from_their_folders(tmp_path: Path) -> None:
    decoders = TapDecoders({"down_1": build_decoder(8, 0), "mid": build_decoder(16, 1, seed=1)})
    features = {"down_1": random_tensor(4, 8, 6, 6), "mid": random_tensor(4, 16, 3, 3)}
    timesteps = torch.tensor([3, 900])
    both = decoders(features, timesteps, 2, (6, 6))
    for tap, decoder in decoders.items():
        assert torch.equal(both[tap], decoder(features[tap], timesteps, 2, (6, 6)))
    decoders.save_pretrained(tmp_path / "two")
    for tap, folder in decoder_folders(tmp_path / "two", ["down_1", "mid"]).items():
        assert folder == tmp_path / "two" / tap
        loaded = LisaDecoder.from_pretrained(folder)
        assert torch.equal(loaded(features[tap], timesteps, 2, (6, 6)), both[tap])


def test_a_single_decoder_is_saved_in_the_folder_itself(tmp_path: Path) -> None:
    decoder = build_decoder(8, 0)
    TapDecoders({"down_1": decoder}).save_pretrained(tmp_path / "one")
    decoder.save_pretrained(tmp_path / "bare")
    names = sorted(path.name for path in (tmp_path / "bare").iterdir())
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "bare" / name).read_bytes()
