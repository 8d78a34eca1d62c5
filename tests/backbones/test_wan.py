"""The Wan adapter against plain diffusers."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from lisa_video.backbones import load_backbone, load_side_network
from lisa_video.backbones.wan import WanBackbone, WanSideNetwork
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.validation.config import FRAME_STEPS
from tests.tiny import awakened, tiny_backbone
from tests.tiny_wan import (
    BLOCKS,
    LATENT_CHANNELS,
    TOKENS,
    WIDTH,
    tiny_transformer,
    tiny_wan,
    tiny_wan_checkpoint,
    tiny_wan_vae,
    wan_inputs,
    wan_pipeline,
)


@pytest.fixture(scope="module")
def backbone() -> WanBackbone:
    return tiny_wan()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_checkpoint(tmp_path_factory.mktemp("wan"))


# Predictions.


def test_backbone_is_frozen_and_keeps_no_graph_before_the_injection(backbone: WanBackbone) -> None:
    inputs = wan_inputs()
    side = awakened(WanSideNetwork.from_backbone(backbone, injection=[4]))
    outputs: list[Tensor] = []
    hook = backbone.blocks[4].register_forward_hook(lambda *call: outputs.append(call[2]))
    controlled, _ = backbone.predict_with_prior(
        *inputs[:3], backbone.side_output(side, *inputs).residuals
    )
    hook.remove()
    controlled.square().mean().backward()
    assert [output.requires_grad for output in outputs] == [False]
    assert all(parameter.grad is None for parameter in backbone.main_network.parameters())
    assert all(parameter.grad is not None for parameter in side.parameters())


def test_bf16_backbone_keeps_what_diffusers_keeps_in_float32() -> None:
    exact = tiny_wan()
    inputs = wan_inputs()
    expected = exact.predict(*inputs[:3])
    fingerprint = exact.fingerprint()
    half = tiny_wan().to(dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.blocks[0].scale_shift_table.dtype == torch.float32
    assert half.blocks[0].ffn.net[0].proj.weight.dtype == torch.bfloat16
    assert half.fingerprint() == fingerprint
    got = half.predict(inputs[0].bfloat16(), inputs[1], inputs[2].bfloat16())
    assert (got.float() - expected).norm() < 0.03 * expected.norm()


# Noise.


def test_flow_path_is_the_schedulers_own(backbone: WanBackbone) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    clean, noise = torch.randn(2, 7, 4, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    a, s = backbone.signal_and_noise(scheduler.timesteps)
    expected = scheduler.scale_noise(clean, scheduler.timesteps, noise)
    torch.testing.assert_close(a * clean + s * noise, expected)
    assert backbone.prediction_type == "flow"


def test_drawn_times_move_towards_noise(backbone: WanBackbone) -> None:
    def mean(shift: float) -> float:
        generator = torch.Generator().manual_seed(0)
        drawn = backbone.sample_timesteps(2000, generator, shift)
        assert drawn.dtype == torch.float32 and drawn.min() >= 0 and drawn.max() < 1000
        return drawn.mean().item()

    assert mean(1.0) == pytest.approx(500, abs=20)
    assert mean(3.0) > 650


# Frames, pixels and text.


def test_frames_that_do_not_fit_are_told_which_would(backbone: WanBackbone) -> None:
    assert [backbone.latent_frames(frames) for frames in (1, 5, 9, 13)] == [1, 2, 3, 4]
    backbone.check_frames(13)
    assert backbone.frame_step == FRAME_STEPS["wan"]
    for frames, message in [
        (12, r"data.frames=12: the VAE takes 1 \+ 4k frames; 9 or 13 would fit"),
        (60, r"data.frames=60: the VAE takes 1 \+ 4k frames; 57 or 61 would fit"),
        (65, "data.frames=65: this backbone takes at most 61 at once"),
        (0, "data.frames=0: must be at least 1"),
    ]:
        with pytest.raises(UserError, match=message):
            backbone.check_frames(frames, "data.frames")
    backbone.check_size((32, 24))
    with pytest.raises(UserError, match=r"size=\[36, 24\]: both must be multiples of 8"):
        backbone.check_size((36, 24))


def test_frame_weights_become_those_of_latent_frames(backbone: WanBackbone) -> None:
    weights = torch.tensor([[1.0, 0, 0, 1, 1, 0, 0, 0, 0], [0.5] * 9])
    expected = torch.tensor([[1.0, 0.5, 0.0], [0.5] * 3])
    assert torch.equal(backbone.latent_frame_means(weights), expected)
    assert torch.equal(backbone.latent_frame_means(weights[:, :1]), weights[:, :1])
    assert torch.equal(tiny_backbone().latent_frame_means(weights), weights)


def test_latents_are_the_pipelines(backbone: WanBackbone) -> None:
    pixels = torch.rand(2, 9, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = backbone.encode_video(pixels)
    assert latents.shape == (2, LATENT_CHANNELS, 3, 6, 8)
    plain = backbone.vae.encode(pixels.transpose(1, 2)).latent_dist.mode()
    statistics = [torch.tensor(v).view(1, -1, 1, 1, 1) for v in ([0.1, -0.2, 0.3, 0.0],)]
    std = torch.tensor([0.5, 1.5, 0.8, 1.0]).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(latents, (plain - statistics[0]) / std)
    decoded = backbone.decode_video(latents)
    expected = backbone.vae.decode(plain).sample.transpose(1, 2)
    assert decoded.shape == pixels.shape
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)
    first = backbone.encode_video(pixels[:, :1])
    torch.testing.assert_close(latents[:, :, :1], first)


def test_sampled_latents_follow_the_generator(backbone: WanBackbone) -> None:
    pixels = torch.rand(1, 5, 3, 8, 8) * 2 - 1
    one, same, other = (
        backbone.encode_video(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_text_is_the_pipelines_with_zeros_after_its_end(backbone: WanBackbone) -> None:
    prompts = ["man", "", "a man who walks, and walks on"]
    text = backbone.encode_text(prompts)
    expected, _ = wan_pipeline(backbone).encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=TOKENS
    )
    assert torch.equal(text, expected)
    assert text[0, 2:].count_nonzero() == 0 and text[0, :2].abs().min() > 0
    assert not text.requires_grad


@pytest.mark.parametrize("residual", [False, True], ids=["2.1", "2.2"])
def test_chunks_are_what_the_vae_decodes_at_once(residual: bool) -> None:
    torch.manual_seed(0)
    backbone = tiny_wan()
    if residual:
        patched = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "is_residual": True}
        config = dict(backbone.vae.config) | patched | {"dim_mult": [1, 2, 2]}
        others = backbone.text_encoder, backbone.tokenizer, backbone.scheduler
        backbone = WanBackbone(backbone.main_network, AutoencoderKLWan(**config), *others)
    latents = torch.randn(2, LATENT_CHANNELS, 4, 6, 4)
    with torch.no_grad():
        expected = backbone.vae.decode(backbone._unscaled(latents)).sample
        chunks = list(backbone.decode_chunks(latents))
    assert [chunk.shape[1] for chunk in chunks] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(chunks, 1), expected.transpose(1, 2))
    backbone.vae.enable_slicing()
    (sliced,) = backbone.decode_chunks(latents)
    torch.testing.assert_close(sliced, torch.cat(chunks, 1))


# Generation.


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ],
    ids=["euler", "unipc"],
)
@pytest.mark.parametrize("expand_timesteps", [False, True])
def test_without_control_it_generates_what_the_wan_pipeline_does(
    scheduler: SchedulerMixin, expand_timesteps: bool
) -> None:
    backbone = tiny_wan(scheduler=scheduler)
    pipeline = PoseToVideoPipeline.from_backbone(backbone, backbone.new_side_network())
    plain = wan_pipeline(backbone)
    plain.register_to_config(expand_timesteps=expand_timesteps)
    for each in (pipeline, plain):
        each.set_progress_bar_config(disable=True)
    ours = pipeline(
        "man",
        torch.rand(1, 9, 3, 32, 48),
        negative_prompt="b",
        num_inference_steps=4,
        guidance_scale=2.5,
        control_scale=0.0,
        generator=torch.Generator().manual_seed(3),
    ).frames
    theirs = plain(
        "man",
        negative_prompt="b",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=2.5,
        max_sequence_length=TOKENS,
        generator=torch.Generator().manual_seed(3),
    ).frames
    assert ours.shape == theirs.shape == (1, 9, 32, 48, 3)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=0, atol=1e-5)
    controlled = pipeline(
        "man", torch.rand(1, 9, 3, 32, 48), num_inference_steps=2, output_type="latent"
    ).frames
    assert controlled.shape == (1, LATENT_CHANNELS, 3, 8, 12)


def test_saved_pipeline_generates_the_same(tmp_path: Path, checkpoint: Path) -> None:
    backbone = WanBackbone.from_pretrained(checkpoint)
    awakened(backbone.new_side_network(injection={"even": 2})).save_pretrained(tmp_path / "side")
    first = PoseToVideoPipeline.from_pretrained(
        checkpoint, side_network=tmp_path / "side", kind="wan"
    )
    first.save_pretrained(tmp_path / "saved")
    second = PoseToVideoPipeline.from_pretrained(tmp_path / "saved")
    results = []
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
        results.append(
            pipeline(
                "man",
                torch.rand(1, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
                num_inference_steps=2,
                output_type="latent",
                generator=torch.Generator().manual_seed(0),
            ).frames
        )
    assert second.config.kind == "wan"
    assert torch.equal(*results)


# Loading.


def test_checkpoint_loads_as_it_was_saved(checkpoint: Path) -> None:
    loaded = load_backbone("wan", checkpoint, text_tokens=TOKENS)
    assert isinstance(loaded, WanBackbone)
    inputs = wan_inputs()
    assert torch.equal(loaded.predict(*inputs[:3]), tiny_wan().predict(*inputs[:3]))
    assert loaded.fingerprint() == tiny_wan().fingerprint()
    assert list(loaded.injection_points) == [f"block_{index}" for index in range(BLOCKS)]
    assert {(p.channels, p.halvings, p.tokens) for p in loaded.injection_points.values()} == {
        (WIDTH, 1, True)
    }


def test_default_text_length(checkpoint: Path) -> None:
    assert WanBackbone.from_pretrained(checkpoint).encode_text(["man"]).shape[1] == 512


def test_side_network_of_another_kind_is_refused(backbone: WanBackbone, tmp_path: Path) -> None:
    other = tiny_backbone()
    with pytest.raises(UserError, match=r"is a UNetSideNetwork, and a backbone of kind wan takes"):
        other.new_side_network().check_backbone(backbone)
    wan_side = backbone.new_side_network()
    with pytest.raises(UserError, match=r"is a WanSideNetwork, and a backbone of kind animatediff"):
        wan_side.check_backbone(other)
    with pytest.raises(UserError, match="was made for another backbone"):
        wan_side.check_backbone(tiny_wan(num_attention_heads=2))
    wan_side.save_pretrained(tmp_path)
    load_side_network(tmp_path).check_backbone(tiny_wan())


def test_settings_of_another_kind_are_refused(backbone: WanBackbone, checkpoint: Path) -> None:
    with pytest.raises(
        UserError, match=r"backbone.motion_adapter: a backbone of kind wan takes no"
    ):
        load_backbone("wan", checkpoint, motion_adapter="x")
    with pytest.raises(
        UserError, match=r"side_network.hidden_size: a backbone of kind animatediff"
    ):
        tiny_backbone().new_side_network(hidden_size=16)


def test_checkpoints_of_other_models_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    parts = {
        "vae": tiny_wan_vae(),
        "text_encoder": tiny_wan().text_encoder,
        "tokenizer": tiny_wan().tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
    for change, message in [
        ({"scheduler": DDIMScheduler()}, "is for epsilon, and a backbone of kind wan"),
        ({"main_network": tiny_transformer(in_channels=9)}, "takes 9 channels and makes 4"),
        (
            {"main_network": tiny_transformer(in_channels=8, out_channels=8)},
            "takes 8 channels and the VAE makes 4",
        ),
        ({"main_network": tiny_transformer(patch_size=(2, 2, 2))}, r"only \(1, n, n\) fits"),
    ]:
        network: dict[str, nn.Module] = {"main_network": tiny_transformer()}
        with pytest.raises(UserError, match=message):
            WanBackbone(**network | parts | change)
    two = tmp_path / "two"
    two.mkdir()
    index = json.loads((checkpoint / "model_index.json").read_text())
    index["transformer_2"] = ["diffusers", "WanTransformer3DModel"]
    (two / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="has two transformers"):
        WanBackbone.from_pretrained(two)
    with pytest.raises(UserError, match=r"model_index.json has no unet"):
        load_backbone("animatediff", checkpoint)
