"""The CogVideoX adapter against plain diffusers, with both kinds of positions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from lisa_video.backbones import load_backbone, load_side_network
from lisa_video.backbones.cogvideox import CogVideoXBackbone, CogVideoXSideNetwork
from lisa_video.decoder import TapDecoders, new_decoder
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.predictions import add_noise
from lisa_video.training.losses import Conditions, LisaObjective, noise_latents, training_losses
from lisa_video.validation.config import FRAME_STEPS
from tests.tiny import awakened
from tests.tiny_cogvideox import (
    WIDTH,
    cogvideox_inputs,
    cogvideox_pipeline,
    cogvideox_scheduler,
    tiny_cogvideox,
    tiny_cogvideox_checkpoint,
    tiny_cogvideox_transformer,
    tiny_cogvideox_vae,
    tiny_t5,
)
from tests.tiny_wan import TOKENS, tiny_t5_tokenizer

ROTARY = {"use_rotary_positional_embeddings": True}
STEPS = 3


@pytest.fixture(scope="module", params=[{}, ROTARY], ids=["added", "rotary"])
def backbone(request: pytest.FixtureRequest) -> CogVideoXBackbone:
    return tiny_cogvideox(**request.param)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cogvideox_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def awake_side(backbone: CogVideoXBackbone, **settings: object) -> CogVideoXSideNetwork:
    return awakened(backbone.new_side_network(**settings))


# Predictions.


def test_positions_are_those_of_the_trained_grid() -> None:
    """At the size that it was trained at, a token's position is its plain index."""
    backbone = tiny_cogvideox(**ROTARY)
    noisy = cogvideox_inputs(9, 6, 8)[0]
    expected = get_3d_rotary_pos_embed(16, ((0, 0), (3, 4)), (3, 4), 3)
    for ours, theirs in zip(backbone._rotary(noisy), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert (backbone.predict(*cogvideox_inputs()[:3]) != 0).any()


# The side network.


def test_copies_are_those_of_the_matching_blocks(backbone: CogVideoXBackbone) -> None:
    side = backbone.new_side_network(injection=[1, 4], taps=["block_1"])
    assert list(side.blocks) == ["block_1", "block_4"]
    for name, copy in side.blocks.items():
        theirs = backbone.blocks[int(name[-1])].state_dict()
        assert copy.state_dict().keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in copy.state_dict().items())
    # With poses still unseen, the first copy continues from where the first block begins.
    inputs = cogvideox_inputs()
    arguments = backbone.block_arguments(*inputs[:3])
    assert arguments["temb"].shape == (2, 12)
    expected, _ = backbone.blocks[1](**arguments)
    output = backbone.side_output(side, *inputs)
    assert torch.equal(output.taps["block_1"], expected)


def test_a_narrower_network_keeps_whole_heads(backbone: CogVideoXBackbone) -> None:
    side = awake_side(backbone, hidden_size=16, injection=[2], taps=["block_2"])
    inputs = cogvideox_inputs()
    output = backbone.side_output(side, *inputs)
    tokens = 3 * 3 * 4
    assert output.taps["block_2"].shape == (2, tokens, 16)
    assert output.residuals.points["block_2"].shape == (2, tokens, WIDTH)
    copy, theirs = side.blocks["block_2"], backbone.blocks[2]
    assert torch.equal(copy.attn1.to_q.weight, theirs.attn1.to_q.weight[:16, :16])
    assert torch.equal(copy.norm1.linear.weight[16:32], theirs.norm1.linear.weight[32:48])
    with pytest.raises(UserError, match="hidden_size=24: must be a multiple of 16"):
        backbone.new_side_network(hidden_size=24)


def test_backbone_never_gets_a_gradient(backbone: CogVideoXBackbone) -> None:
    inputs = cogvideox_inputs()
    side = awake_side(backbone)
    output = backbone.side_output(side, *inputs)
    controlled, _ = backbone.predict_with_prior(*inputs[:3], output.residuals)
    controlled.square().mean().backward()
    for module in (backbone.main_network, backbone.vae, backbone.text_encoder):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
        assert not module.training
    without = {name for name, p in side.named_parameters() if p.grad is None}
    assert not without


# Ways to train.


def lisa_loss(backbone: CogVideoXBackbone, side: nn.Module) -> Tensor:
    """The LISA loss of one batch; the same for the same weights."""
    latents, timesteps, text, poses = cogvideox_inputs(seed=3)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    noised = noise_latents(backbone, latents, noise, timesteps)
    torch.manual_seed(5)
    decoder = new_decoder(side.tap_points["block_2"], backbone.latent_channels)
    nn.init.normal_(decoder.conv_out.weight, std=0.05)
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]])
    conditions = Conditions(text.to(backbone.dtype), poses, weights)
    lisa = LisaObjective(TapDecoders({"block_2": decoder}), ["block_2"], weight=0.2)
    return training_losses(backbone, side, noised, conditions, lisa).total


def trained_settings(backbone: CogVideoXBackbone) -> CogVideoXSideNetwork:
    return awake_side(backbone, injection={"stride": 2}, taps=["block_2"])


@pytest.mark.parametrize("changes", [{}, ROTARY], ids=["added", "rotary"])
def test_gradient_checkpointing_changes_no_gradient(changes: dict[str, object]) -> None:
    gradients = []
    for checkpointing in (False, True):
        backbone = tiny_cogvideox(**changes)
        side = trained_settings(backbone)
        if checkpointing:
            side.enable_gradient_checkpointing()
            backbone.enable_gradient_checkpointing()
        lisa_loss(backbone, side).backward()
        gradients.append({name: p.grad for name, p in side.named_parameters()})
    for name, plain in gradients[0].items():
        torch.testing.assert_close(plain, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_half_precision_gives_nearly_the_same_loss() -> None:
    """2 %: bfloat16 keeps 8 bits."""
    expected = lisa_loss(backbone := tiny_cogvideox(**ROTARY), trained_settings(backbone))
    side = trained_settings(backbone)
    backbone.to(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = lisa_loss(backbone, side)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    # A float32 side network on a half-precision backbone runs without autocast, too.
    assert lisa_loss(backbone, side).item() == pytest.approx(expected.item(), rel=0.02)


COMPILED = [
    "aot_eager",
    pytest.param(
        "inductor",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
        ],
    ),
]


@pytest.mark.parametrize("compiler", COMPILED)
def test_compiled_blocks_give_the_same_loss(compiler: str) -> None:
    """1e-5: fused kernels add up in another order."""
    backbone = tiny_cogvideox()
    side = awake_side(backbone, injection=[2], taps=["block_2"])
    expected = lisa_loss(backbone, side)
    for block in side.blocks.values():
        block.compile(backend=compiler)
    loss = lisa_loss(backbone, side)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(p.grad is not None for p in side.blocks.parameters())


# Noise, pixels and text.


@pytest.mark.parametrize("snr_shift_scale", [1.0, 3.0])
def test_noise_levels_are_the_schedulers(snr_shift_scale: float) -> None:
    scheduler = CogVideoXDDIMScheduler.from_config(
        cogvideox_scheduler().config, snr_shift_scale=snr_shift_scale
    )
    backbone = tiny_cogvideox(scheduler=scheduler)
    assert backbone.prediction_type == "v_prediction"
    timesteps = torch.tensor([0, 1, 500, 999])
    clean = cogvideox_inputs(batch=4)[0]
    noise = torch.randn_like(clean)
    a, s = backbone.signal_and_noise(timesteps)
    torch.testing.assert_close(
        add_noise(clean, noise, a, s), scheduler.add_noise(clean, noise, timesteps)
    )
    assert (a[-1].item(), s[-1].item()) == (0, 1)


def test_a_dpm_scheduler_becomes_the_ddim_one_of_the_same_levels() -> None:
    dpm = CogVideoXDPMScheduler.from_config(cogvideox_scheduler().config, snr_shift_scale=1.0)
    backbone = tiny_cogvideox(scheduler=dpm)
    assert type(backbone.scheduler) is CogVideoXDDIMScheduler
    assert backbone.scheduler.config.snr_shift_scale == 1.0
    assert torch.equal(backbone.scheduler.alphas_cumprod, dpm.alphas_cumprod)


def test_latents_are_scaled_as_the_pipeline_unscales_them() -> None:
    backbone = tiny_cogvideox()
    pixels = torch.rand(2, 9, 3, 24, 32) * 2 - 1
    latents = backbone.encode_video(pixels)
    assert latents.shape == (2, 4, 3, 6, 8)
    posterior = backbone.vae.encode(pixels.transpose(1, 2)).latent_dist
    torch.testing.assert_close(latents, posterior.mode() * 0.7)
    sampled = backbone.encode_video(pixels, torch.Generator().manual_seed(0))
    expected = posterior.sample(torch.Generator().manual_seed(0)) * 0.7
    torch.testing.assert_close(sampled, expected)
    decoded = cogvideox_pipeline(backbone).decode_latents(latents.transpose(1, 2))
    torch.testing.assert_close(backbone.decode_video(latents), decoded.transpose(1, 2).clamp(-1, 1))


def test_only_frames_that_the_vae_gives_back_are_taken() -> None:
    backbone = tiny_cogvideox()
    for frames in range(1, 18):
        pixels = torch.zeros(1, frames, 3, 8, 8)
        if (frames - 1) % 8:
            with pytest.raises(UserError, match=r"the VAE takes 1 \+ 8k frames; .* would fit"):
                backbone.check_frames(frames)
        else:
            backbone.check_frames(frames)
            latents = backbone.encode_video(pixels)
            assert latents.shape[2] == backbone.latent_frames(frames)
            assert backbone.decode_video(latents).shape == pixels.shape
    assert backbone.frame_step == FRAME_STEPS["cogvideox"]
    # Why not 5 frames, although they make 2 latent frames: 8 come back.
    two = backbone.encode_video(torch.zeros(1, 5, 3, 8, 8))
    assert backbone.decode_video(two).shape[1] == 8
    with pytest.raises(UserError, match="frames=25: this backbone takes at most 17"):
        backbone.check_frames(25)
    with pytest.raises(UserError, match="both must be multiples of 8"):
        backbone.check_size((32, 20))


def test_text_states_equal_the_pipelines(backbone: CogVideoXBackbone) -> None:
    prompts = ["a man", "a man walks, and walks far beyond the last token", ""]
    expected, _ = cogvideox_pipeline(backbone).encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=TOKENS
    )
    assert torch.equal(backbone.encode_text(prompts), expected)
    assert expected.shape == (3, TOKENS, 16)


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 7])
def test_chunks_are_what_the_vae_decodes_at_once(
    backbone: CogVideoXBackbone, latent_frames: int
) -> None:
    latents = torch.randn(1, 4, latent_frames, 6, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone.vae.decode(backbone._unscaled(latents)).sample.clamp(-1, 1)
        chunks = list(backbone.decode_chunks(latents))
    assert len(chunks) == max(1, latent_frames // 2)
    assert torch.equal(torch.cat(chunks, 1), expected.transpose(1, 2))


# Generation.


def silent(pipeline: PoseToVideoPipeline) -> PoseToVideoPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: PoseToVideoPipeline, **changes: object) -> np.ndarray:
    settings = {
        "prompt": "a man",
        "negative_prompt": "a house",
        "pose_frames": cogvideox_inputs()[3][:1],
        "latents": cogvideox_inputs()[0][:1],
        "num_inference_steps": STEPS,
    }
    return pipeline(**(settings | changes)).frames


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_without_control_equals_cogvideox_pipeline(
    backbone: CogVideoXBackbone, guidance_scale: float
) -> None:
    reference = cogvideox_pipeline(backbone)
    reference.set_progress_bar_config(disable=True)
    expected = reference(
        prompt="a man",
        negative_prompt="a house",
        height=24,
        width=32,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        latents=cogvideox_inputs()[0][:1].transpose(1, 2),
        max_sequence_length=TOKENS,
        output_type="np",
    ).frames
    pipeline = silent(PoseToVideoPipeline.from_backbone(backbone, awake_side(backbone)))
    got = generate(pipeline, control_scale=0, guidance_scale=guidance_scale)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    steered = generate(pipeline, guidance_scale=guidance_scale)
    assert not np.allclose(steered, expected, atol=1e-3)


def test_pipeline_and_side_network_load_as_they_were_saved(
    checkpoint: Path, tmp_path: Path
) -> None:
    backbone = load_backbone("cogvideox", checkpoint)
    assert backbone.fingerprint() == tiny_cogvideox().fingerprint()
    assert (backbone.frame_size, backbone.max_frames) == ((32, 24), 17)
    side = awake_side(backbone, injection=[1, 4], taps=["block_4"], hidden_size=16).eval()
    side.save_pretrained(tmp_path / "side")
    loaded = load_side_network(tmp_path / "side")
    assert type(loaded) is CogVideoXSideNetwork
    loaded.check_backbone(backbone)
    inputs = cogvideox_inputs()
    ours, theirs = (backbone.side_output(each, *inputs) for each in (side, loaded))
    assert torch.equal(ours.taps["block_4"], theirs.taps["block_4"])
    assert torch.equal(ours.residuals.points["block_1"], theirs.residuals.points["block_1"])

    expected = generate(silent(PoseToVideoPipeline.from_backbone(backbone, side)))
    pipeline = PoseToVideoPipeline.from_pretrained(
        checkpoint, side_network=tmp_path / "side", kind="cogvideox"
    )
    pipeline.save_pretrained(tmp_path / "whole")
    whole = silent(PoseToVideoPipeline.from_pretrained(tmp_path / "whole"))
    np.testing.assert_array_equal(generate(whole), expected)


# Refusals.


def test_parts_that_cannot_be_steered_are_refused() -> None:
    tokenizer = tiny_t5_tokenizer()
    parts = {
        "main_network": tiny_cogvideox_transformer(),
        "vae": tiny_cogvideox_vae(),
        "text_encoder": tiny_t5(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": cogvideox_scheduler(),
    }
    made = tiny_cogvideox_transformer
    for change, message in [
        ({"main_network": made(patch_size_t=2, **ROTARY)}, r"CogVideoX 1\.5"),
        ({"main_network": made(ofs_embed_dim=8)}, r"wants an offset \(ofs\)"),
        ({"main_network": made(in_channels=8)}, "takes 8 channels and makes 4: .* image-to-video"),
        ({"vae": tiny_cogvideox_vae(latent_channels=8)}, "takes 4 channels and the VAE makes 8"),
        ({"scheduler": DDIMScheduler()}, "is for epsilon, and a backbone of kind cogvideox"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler()}, "is for flow"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            CogVideoXBackbone(**parts | change)
        assert "\n" not in str(caught.value)


def test_text_length_is_free_only_with_rotary_positions(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text_tokens=6: .* are made for 10 tokens") as caught:
        load_backbone("cogvideox", checkpoint, text_tokens=6)
    assert "\n" not in str(caught.value)
    assert load_backbone("cogvideox", checkpoint, text_tokens=TOKENS).text_tokens == TOKENS
    rotary = tiny_cogvideox_checkpoint(tmp_path, tiny_cogvideox(**ROTARY))
    backbone = load_backbone("cogvideox", rotary, text_tokens=6)
    text = backbone.encode_text(["a man"])
    assert text.shape == (1, 6, 16)
    noisy, timesteps, _, _ = cogvideox_inputs(batch=1)
    assert backbone.predict(noisy, timesteps, text).isfinite().all()


def test_a_side_network_of_another_backbone_is_refused(backbone: CogVideoXBackbone) -> None:
    side = backbone.new_side_network(injection=[0])
    with pytest.raises(UserError, match="was made for another backbone"):
        side.check_backbone(tiny_cogvideox(seed=1))
    with pytest.raises(UserError, match="takes no such setting"):
        backbone.new_side_network(pose_channels=[8, 8, 8])
    with pytest.raises(UserError, match="injection names index 6, but there is block_0"):
        backbone.new_side_network(injection=[6])
