"""The AnimateDiff adapter against plain diffusers."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from einops import repeat
from torch import nn

from lisa_video.backbones import load_backbone
from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.errors import UserError
from lisa_video.injection import SideResiduals
from lisa_video.predictions import add_noise
from lisa_video.side_networks.unet import UNetSideNetwork
from tests.tiny import (
    animatediff_pipeline,
    awakened,
    epsilon_scheduler,
    model_inputs,
    tiny_backbone,
    tiny_checkpoint,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_unet,
    tiny_vae,
    zero_snr_scheduler,
)

SIZES = [(1, 8, 8), (3, 7, 9), (5, 8, 12), (7, 5, 4)]
DEEP = {
    "block_out_channels": (16, 16, 32),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlockMotion",) * 2 + ("DownBlockMotion",),
    "up_block_types": ("UpBlockMotion",) + ("CrossAttnUpBlockMotion",) * 2,
}


@pytest.fixture(scope="module")
def backbone() -> AnimateDiffBackbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def side_residuals(backbone: AnimateDiffBackbone, inputs: tuple) -> SideResiduals:
    return awakened(UNetSideNetwork.from_backbone(backbone))(*inputs).residuals


def diffusers_forward(
    backbone: AnimateDiffBackbone, inputs: tuple, residuals: SideResiduals | None
) -> torch.Tensor:
    """The UNet called by hand, as `AnimateDiffControlNetPipeline` calls it."""
    noisy, timesteps, text, _ = inputs
    down = mid = None
    if residuals is not None:
        names = sorted(name for name in residuals.points if name != "mid")
        down, mid = [residuals.points[name] for name in names], residuals.points["mid"]
    return backbone.main_network(
        sample=noisy,
        timestep=timesteps,
        encoder_hidden_states=text.repeat_interleave(noisy.shape[2], dim=0),
        down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
    ).sample


# Shared encoder pass.


@pytest.mark.parametrize("changes", [{}, DEEP, {"use_motion_mid_block": False}])
def test_one_pass_equals_two_diffusers_forwards(changes: dict) -> None:
    backbone = tiny_backbone(**changes)
    side = awakened(UNetSideNetwork.from_backbone(backbone))
    for size, checkpointing in itertools.product(SIZES, (False, True)):
        if checkpointing:
            backbone.main_network.enable_gradient_checkpointing()
        else:
            backbone.main_network.disable_gradient_checkpointing()
        inputs = model_inputs(*size)
        residuals = side(*inputs).residuals
        controlled, prior = backbone.predict_with_prior(*inputs[:3], residuals)
        assert torch.equal(controlled, diffusers_forward(backbone, inputs, residuals))
        assert torch.equal(prior, diffusers_forward(backbone, inputs, None))
        assert (controlled - prior).abs().max() > 1e-3
        assert torch.equal(backbone.predict(*inputs[:3], residuals), controlled)
        assert torch.equal(backbone.predict(*inputs[:3]), prior)


@pytest.mark.parametrize("clips", [[0], [2, 0], [0, 1, 2]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_prior_of_some_clips_equals_their_own_forward(
    clips: list[int], checkpointing: bool
) -> None:
    backbone = tiny_backbone().to(dtype=torch.float64)
    if checkpointing:
        backbone.main_network.enable_gradient_checkpointing()
    noisy, timesteps, text, poses = model_inputs(3, 7, 9, batch=3)
    inputs = (noisy.double(), timesteps, text.double(), poses.double())
    side = awakened(UNetSideNetwork.from_backbone(backbone)).double()
    residuals = side(*inputs).residuals
    rows: list[int] = []
    hook = backbone.main_network.up_blocks[-1].register_forward_pre_hook(
        lambda _block, _args, given: rows.append(len(given["hidden_states"])), with_kwargs=True
    )
    chosen = torch.tensor(clips)
    controlled, prior = backbone.predict_with_prior(*inputs[:3], residuals, chosen)
    hook.remove()
    assert rows == [3 * len(clips), 3 * 3]
    assert not prior.requires_grad
    close = {"rtol": 1e-10, "atol": 1e-10}
    alone = diffusers_forward(backbone, tuple(each[chosen] for each in inputs), None)
    torch.testing.assert_close(prior, alone, **close)
    expected = diffusers_forward(backbone, inputs, residuals)
    torch.testing.assert_close(controlled, expected, **close)
    weights = list(side.parameters())
    got = torch.autograd.grad(controlled.square().sum(), weights, retain_graph=True)
    wanted = torch.autograd.grad(expected.square().sum(), weights)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_of_residuals_equals_the_full_forwards(checkpointing: bool) -> None:
    backbone = tiny_backbone()
    if checkpointing:
        backbone.main_network.enable_gradient_checkpointing()
    inputs = model_inputs(3, 7, 9)
    points = {
        name: value.detach().requires_grad_()
        for name, value in side_residuals(backbone, inputs).points.items()
    }
    residuals = SideResiduals(points)
    shared, prior = backbone.predict_with_prior(*inputs[:3], residuals)
    full = diffusers_forward(backbone, inputs, residuals)
    leaves = list(points.values())
    got = torch.autograd.grad(shared.square().sum(), leaves)
    expected = torch.autograd.grad(full.square().sum(), leaves)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert one.abs().max() > 0
    assert not prior.requires_grad


@pytest.mark.parametrize("kept", [["down_1"], ["mid"], ["down_0", "down_3"]])
def test_partial_residuals_equal_zeros_elsewhere(
    backbone: AnimateDiffBackbone, kept: list[str]
) -> None:
    inputs = model_inputs(3, 7, 9)
    full = side_residuals(backbone, inputs).points
    partial = SideResiduals({name: full[name] for name in kept})
    filled = SideResiduals({n: v if n in kept else torch.zeros_like(v) for n, v in full.items()})
    expected = diffusers_forward(backbone, inputs, filled)
    for got in (
        backbone.predict(*inputs[:3], partial),
        backbone.predict_with_prior(*inputs[:3], partial)[0],
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_encoder_runs_once_and_keeps_no_graph(backbone: AnimateDiffBackbone) -> None:
    inputs = model_inputs()
    residuals = side_residuals(backbone, inputs)
    encoder = [
        backbone.main_network.conv_in,
        *backbone.main_network.down_blocks,
        backbone.main_network.mid_block,
    ]
    outputs: list[torch.Tensor] = []
    up_blocks: list[nn.Module] = []

    def keep(_module: nn.Module, _args: tuple, output: object) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [part.register_forward_hook(keep) for part in encoder]
    hooks += [
        part.register_forward_hook(lambda block, *_: up_blocks.append(block))
        for part in backbone.main_network.up_blocks
    ]
    backbone.predict_with_prior(*inputs[:3], residuals)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == len(encoder)
    assert len(up_blocks) == 2 * len(backbone.main_network.up_blocks)
    assert not any(output.requires_grad for output in outputs)


def test_backbone_never_gets_a_gradient(backbone: AnimateDiffBackbone) -> None:
    inputs = model_inputs()
    side = awakened(UNetSideNetwork.from_backbone(backbone))
    controlled, _ = backbone.predict_with_prior(*inputs[:3], side(*inputs).residuals)
    controlled.square().mean().backward()
    for module in (backbone.main_network, backbone.vae, backbone.text_encoder):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
        assert not module.training
    assert all(p.grad is not None for p in side.parameters())


def test_nan_residuals_leave_the_prior_alone(backbone: AnimateDiffBackbone) -> None:
    inputs = model_inputs()
    clean = side_residuals(backbone, inputs)
    controlled, prior = backbone.predict_with_prior(*inputs[:3], clean.scaled(float("nan")))
    assert controlled.isnan().all()
    assert torch.equal(prior, backbone.predict(*inputs[:3]))


def test_no_hook_stays_behind(backbone: AnimateDiffBackbone) -> None:
    inputs = model_inputs()
    residuals = side_residuals(backbone, inputs)
    backbone.predict_with_prior(*inputs[:3], residuals)
    with pytest.raises(RuntimeError):
        backbone.predict_with_prior(inputs[0], inputs[1], inputs[2][..., :3], residuals)
    assert not any(module._forward_pre_hooks for module in backbone.main_network.modules())


# Noise schedule.


@pytest.mark.parametrize("scheduler", [zero_snr_scheduler(), epsilon_scheduler()])
def test_noise_levels_are_the_schedulers(scheduler: DDIMScheduler) -> None:
    backbone = tiny_backbone(scheduler=scheduler)
    assert backbone.prediction_type == scheduler.config.prediction_type
    noisy, _, _, _ = model_inputs(batch=4)
    noise = torch.randn_like(noisy)
    timesteps = torch.tensor([0, 1, 500, 999])
    a, s = backbone.signal_and_noise(timesteps)
    assert a.shape == s.shape == (4, 1, 1, 1, 1)
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))
    torch.testing.assert_close(
        add_noise(noisy, noise, a, s), scheduler.add_noise(noisy, noise, timesteps)
    )


def test_zero_terminal_snr_is_pure_noise(backbone: AnimateDiffBackbone) -> None:
    a, s = backbone.signal_and_noise(torch.tensor([999]))
    assert a.item() == 0
    assert s.item() == 1


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_timesteps_follow_the_shifted_distribution(
    backbone: AnimateDiffBackbone, shift: float
) -> None:
    timesteps = backbone.sample_timesteps(20000, torch.Generator().manual_seed(0), shift)
    assert timesteps.dtype == torch.long
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    median = timesteps.float().median().item() / 1000
    assert median == pytest.approx(shift * 0.5 / (1 + (shift - 1) * 0.5), abs=0.02)
    again = backbone.sample_timesteps(20000, torch.Generator().manual_seed(0), shift)
    assert torch.equal(timesteps, again)


# Pixels and text.


def test_text_states_equal_animatediff_pipelines(backbone: AnimateDiffBackbone) -> None:
    prompts = ["a man", "a man walks, and walks, and walks far beyond the last token", ""]
    expected, _ = animatediff_pipeline(backbone).encode_prompt(prompts, "cpu", 1, False)
    assert torch.equal(backbone.encode_text(prompts), expected)


def test_latents_are_the_vaes_frame_by_frame(backbone: AnimateDiffBackbone) -> None:
    pixels = torch.rand(2, 9, 3, 32, 24) * 2 - 1
    latents = backbone.encode_video(pixels)
    assert latents.shape == (2, 4, 9, 8, 6)
    mode = backbone.vae.encode(pixels[1, 5:6]).latent_dist.mode()[0]
    torch.testing.assert_close(latents[1, :, 5], mode * backbone.vae.config.scaling_factor)
    expected = backbone.vae.decode(mode[None]).sample[0].clamp(-1, 1)
    torch.testing.assert_close(backbone.decode_video(latents)[1, 5], expected, rtol=0, atol=1e-5)


def test_latents_are_sampled_by_the_generator(backbone: AnimateDiffBackbone) -> None:
    pixels = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    first, again, other = (
        backbone.encode_video(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


# Loading.


def test_folder_loads_as_it_was_saved(checkpoint: Path) -> None:
    original, loaded = tiny_backbone(), load_backbone("animatediff", checkpoint)
    inputs = model_inputs()[:3]
    assert torch.equal(original.predict(*inputs), loaded.predict(*inputs))
    assert torch.equal(original.encode_text(["a man"]), loaded.encode_text(["a man"]))
    assert loaded.fingerprint() == original.fingerprint()
    assert (loaded.latent_channels, loaded.vae_scale_factor, loaded.max_frames) == (4, 4, 16)
    assert loaded.num_timesteps == 1000


def test_fingerprint_survives_half_precision_but_no_other_weights(checkpoint: Path) -> None:
    half = AnimateDiffBackbone.from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert half.dtype == half.vae.dtype == half.text_encoder.dtype == torch.bfloat16
    assert half.fingerprint() == tiny_backbone().fingerprint()
    assert half.fingerprint() != tiny_backbone(seed=1).fingerprint()
    assert half.fingerprint() != tiny_backbone(norm_num_groups=4).fingerprint()


def test_stable_diffusion_takes_a_motion_adapter(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flat = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    adapter = MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=2,
        motion_max_seq_length=16,
        use_motion_mid_block=False,
    )
    folder = tiny_checkpoint(tmp_path / "sd", tiny_backbone(scheduler=epsilon_scheduler()))
    flat.save_pretrained(folder / "unet")
    adapter.save_pretrained(tmp_path / "adapter")
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    (folder / "model_index.json").write_text(json.dumps(index))

    backbone = AnimateDiffBackbone.from_pretrained(
        folder, motion_adapter=tmp_path / "adapter", beta_schedule="linear"
    )
    expected = UNetMotionModel.from_unet2d(flat, adapter).eval()
    noisy, timesteps, text, _ = model_inputs()
    states = repeat(text, "b l d -> (b f) l d", f=noisy.shape[2])
    with torch.no_grad():
        prediction = expected(noisy, timesteps, states).sample
    assert torch.equal(backbone.predict(noisy, timesteps, text), prediction)
    assert backbone.prediction_type == "epsilon"
    assert backbone.scheduler.config.beta_schedule == "linear"
    a, _ = backbone.signal_and_noise(torch.tensor([500]))
    linear = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    torch.testing.assert_close(a.flatten()[0], linear.alphas_cumprod[500].sqrt())
    inputs = model_inputs()
    residuals = side_residuals(backbone, inputs)
    controlled, _ = backbone.predict_with_prior(*inputs[:3], residuals)
    assert torch.equal(controlled, diffusers_forward(backbone, inputs, residuals))

    with pytest.raises(UserError, match=r"no motion modules, name a motion adapter"):
        AnimateDiffBackbone.from_pretrained(folder)
    MotionAdapter(block_out_channels=(32,)).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"other: does not fit the UNet of .*number of blocks"):
        AnimateDiffBackbone.from_pretrained(folder, motion_adapter=tmp_path / "other")


def refused(path: Path | str, **options: object) -> str:
    """The message, which has to be one line."""
    with pytest.raises(UserError) as caught:
        load_backbone("animatediff", path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'wan21', known: animatediff"):
        load_backbone("wan21", "anywhere")


def test_unloadable_folders_are_refused_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "no such folder" in refused(tmp_path / "nothing")
    assert "model_index.json is missing" in refused(tmp_path)

    folder = tiny_checkpoint(tmp_path / "checkpoint")
    index = json.loads((folder / "model_index.json").read_text())

    def with_entry(name: str, entry: object) -> str:
        (folder / "model_index.json").write_text(json.dumps(index | {name: entry}))
        message = refused(folder)
        (folder / "model_index.json").write_text(json.dumps(index))
        return message

    assert "has no vae" in with_entry("vae", [None, None])
    assert "diffusers.UNet3DConditionModel, expected UNetMotionModel or" in with_entry(
        "unet", ["diffusers", "UNet3DConditionModel"]
    )
    assert "expected CLIPTextModel" in with_entry("text_encoder", ["transformers", "T5Encoder"])
    assert "expected a diffusers scheduler" in with_entry("scheduler", ["diffusers", "UNet1D"])
    assert "expected a diffusers scheduler" in with_entry("scheduler", ["os", "DDIMScheduler"])

    (folder / "vae").rename(folder / "autoencoder")
    assert "folder vae/ is missing" in refused(folder)
    (folder / "autoencoder").rename(folder / "vae")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    assert "not a loadable UNetMotionModel" in refused(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "no file named diffusion_pytorch_model.safetensors" in refused(folder)
    (folder / "model_index.json").write_text("{")
    assert "no checkpoint there" in refused(folder)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_parts_that_cannot_be_steered_are_refused() -> None:
    tokenizer = tiny_tokenizer()
    parts = {
        "main_network": tiny_unet(),
        "vae": tiny_vae(),
        "text_encoder": tiny_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": zero_snr_scheduler(),
    }
    AnimateDiffBackbone(**parts)
    AnimateDiffBackbone(**parts | {"scheduler": EulerDiscreteScheduler()})
    for change, message in [
        (
            {"scheduler": FlowMatchEulerDiscreteScheduler()},
            "is for flow, and a backbone of kind animatediff",
        ),
        ({"scheduler": EulerDiscreteScheduler(prediction_type="flow")}, "prediction_type 'flow'"),
        ({"main_network": tiny_vae()}, "unet is a AutoencoderKL"),
        ({"main_network": tiny_unet(in_channels=9)}, "takes 9 channels and the VAE makes 4"),
        ({"vae": AutoencoderKL(latent_channels=8)}, "takes 4 channels and the VAE makes 8"),
    ]:
        with pytest.raises(UserError, match=message):
            AnimateDiffBackbone(**parts | change)
