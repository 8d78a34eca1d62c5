"""The pipeline's arguments, callbacks and outputs, and how it is saved, compiled and offloaded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import AnimateDiffPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.side_networks.unet import UNetSideNetwork
from tests.tiny import awakened, tiny_backbone, tiny_checkpoint, zero_snr_scheduler
from tests.tiny_cogvideox import tiny_cogvideox
from tests.tiny_wan import tiny_wan

STEPS = 4


@pytest.fixture(scope="module")
def backbone() -> AnimateDiffBackbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def pipeline(backbone: AnimateDiffBackbone) -> PoseToVideoPipeline:
    side = awakened(UNetSideNetwork.from_backbone(backbone))
    return silent(PoseToVideoPipeline.from_backbone(backbone, side))


def silent(pipeline: PoseToVideoPipeline) -> PoseToVideoPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def poses(batch: int = 1, frames: int = 3, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, frames, 3, height, width, generator=generator)


def generate(pipeline: PoseToVideoPipeline, **changes: object) -> Tensor:
    settings = {
        "prompt": "a man",
        "pose_frames": poses(),
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipeline(**(settings | changes)).frames


def test_untrained_side_network_changes_nothing(backbone: AnimateDiffBackbone) -> None:
    side = UNetSideNetwork.from_backbone(backbone, pose_init="normal")
    pipeline = silent(PoseToVideoPipeline.from_backbone(backbone, side))
    assert torch.equal(generate(pipeline), generate(pipeline, control_scale=0.0))


def test_steps_follow_the_scheduler_with_controlled_predictions(
    pipeline: PoseToVideoPipeline,
) -> None:
    """Guided sampling written out: each half predicted on its own, residuals scaled."""
    backbone, side = pipeline.backbone, pipeline.side_network
    scheduler = zero_snr_scheduler()
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 3, 8, 8, generator=generator)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            halves = []
            for prompt in ("", "a man"):
                inputs = (latents, timestep[None], backbone.encode_text([prompt]))
                residuals = side(*inputs, poses()).residuals.scaled(0.7)
                halves.append(backbone.predict(*inputs, residuals))
            guided = halves[0] + 3 * (halves[1] - halves[0])
            latents = scheduler.step(guided, timestep, latents).prev_sample
    got = generate(pipeline, control_scale=0.7, guidance_scale=3)
    torch.testing.assert_close(got, latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [(0, 1, [0, 1, 2, 3]), (0, 0.5, [0, 1]), (0.5, 1, [2, 3]), (0.25, 0.75, [1, 2]), (0, 0, [])],
)
def test_control_acts_between_start_and_end(
    pipeline: PoseToVideoPipeline, start: float, end: float, steps: list[int]
) -> None:
    calls: list[float] = []
    hook = pipeline.side_network.register_forward_pre_hook(
        lambda _, args: calls.append(args[1][0].item())
    )
    generate(pipeline, control_start=start, control_end=end)
    hook.remove()
    assert calls == [pipeline.scheduler.timesteps[step].item() for step in steps]


def test_output_types_agree(pipeline: PoseToVideoPipeline) -> None:
    array, tensor, latents = (generate(pipeline, output_type=t) for t in ("np", "pt", "latent"))
    assert array.shape == (1, 3, 32, 32, 3)
    assert array.dtype == np.float32
    assert tensor.shape == (1, 3, 3, 32, 32)
    assert 0 <= array.min() <= array.max() <= 1
    np.testing.assert_array_equal(array, tensor.permute(0, 1, 3, 4, 2).numpy())
    decoded = pipeline.backbone.decode_video(latents) / 2 + 0.5
    torch.testing.assert_close(tensor, decoded)


def test_clips_of_a_batch_are_independent(pipeline: PoseToVideoPipeline) -> None:
    both = poses(batch=2, height=28, width=36)
    noise = torch.randn(2, 4, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    together = generate(
        pipeline, prompt=["a man", "two"], pose_frames=both, latents=noise, generator=None
    )
    alone = generate(
        pipeline, prompt="two", pose_frames=both[1:], latents=noise[1:], generator=None
    )
    assert together.shape == (2, 4, 3, 7, 9)
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-4)
    one_pose = generate(pipeline, prompt=["a man", "two"], pose_frames=both[:1])
    one_prompt = generate(pipeline, prompt="a man", pose_frames=both)
    assert one_pose.shape == one_prompt.shape == together.shape


def test_pose_sequence_is_drawn_at_the_size_asked_for(pipeline: PoseToVideoPipeline) -> None:
    keypoints = np.random.default_rng(0).uniform(0, 1, (3, 1, 18, 3)).astype(np.float32)
    keypoints[..., :2] *= (48, 100)
    sequence = PoseSequence(keypoints, width=48, height=100, fps=10)
    for options, size in [({}, (32, 32)), ({"width": 20, "height": 36}, (20, 36))]:
        drawn = draw_pose_frames(keypoints, (48, 100), size)
        expected = generate(pipeline, pose_frames=torch.from_numpy(drawn)[None])
        assert expected.shape[3:] == (size[1] // 4, size[0] // 4)
        assert torch.equal(generate(pipeline, pose_frames=sequence, **options), expected)


def test_seed_decides_the_clip(pipeline: PoseToVideoPipeline) -> None:
    assert torch.equal(generate(pipeline), generate(pipeline))
    other = generate(pipeline, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(generate(pipeline), other)


def test_callback_sees_and_replaces_latents(pipeline: PoseToVideoPipeline) -> None:
    seen: list[int] = []

    def zero_last(_: object, step: int, __: object, tensors: dict[str, Tensor]) -> dict:
        seen.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])} if step == STEPS - 1 else {}

    assert generate(pipeline, callback_on_step_end=zero_last).count_nonzero() == 0
    assert seen == list(range(STEPS))


def test_callback_takes_the_tensors_it_names(pipeline: PoseToVideoPipeline) -> None:
    seen: list[dict[str, tuple[int, ...]]] = []

    def other_prompt(_: object, step: int, __: object, tensors: dict[str, Tensor]) -> dict:
        seen.append({name: tuple(value.shape) for name, value in tensors.items()})
        return {"prompt_embeds": pipeline.backbone.encode_text(["two"])} if step == 0 else {}

    names = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    options = {
        "callback_on_step_end": other_prompt,
        "callback_on_step_end_tensor_inputs": names,
    }
    changed = generate(pipeline, **options)
    assert list(seen[0]) == names
    assert seen[0]["prompt_embeds"] == seen[0]["negative_prompt_embeds"] == (1, 12, 32)
    assert not torch.equal(changed, generate(pipeline))
    generate(pipeline, **options, guidance_scale=1)
    assert list(seen[-1]) == names[:2]
    with pytest.raises(UserError, match="no 'noise', there are latents, prompt_embeds"):
        generate(pipeline, callback_on_step_end_tensor_inputs=["noise"])


def test_callbacks_of_diffusers_end_guidance_early(pipeline: PoseToVideoPipeline) -> None:
    predicted: list[int] = []
    hook = pipeline.main_network.register_forward_pre_hook(
        lambda _, args: predicted.append(len(args[0]))
    )
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    generate(pipeline, callback_on_step_end=cutoff)
    hook.remove()
    assert predicted == [2, 2, 2, 1]
    assert pipeline.num_timesteps == STEPS


def test_a_callback_can_interrupt(pipeline: PoseToVideoPipeline) -> None:
    steps: list[int] = []

    def stop(running: PoseToVideoPipeline, step: int, *_: object) -> dict:
        steps.append(step)
        running._interrupt = step == 1
        return {}

    generate(pipeline, callback_on_step_end=stop)
    assert steps == [0, 1]
    assert pipeline.interrupt
    generate(pipeline)
    assert not pipeline.interrupt


def test_encoded_prompts_stand_for_words(pipeline: PoseToVideoPipeline) -> None:
    encode = pipeline.backbone.encode_text
    embeds = {"prompt_embeds": encode(["a man"]), "negative_prompt_embeds": encode(["bad"])}
    expected = generate(pipeline, negative_prompt="bad")
    assert torch.equal(generate(pipeline, prompt=None, **embeds), expected)
    for changes, message in [
        ({"prompt": None}, "give either prompt or prompt_embeds"),
        (embeds, "give either prompt or prompt_embeds"),
        ({"prompt": None, "prompt_embeds": embeds["prompt_embeds"][0]}, "expected .batch, tokens"),
        (
            {"negative_prompt_embeds": embeds["negative_prompt_embeds"][:, :3]},
            "tokens and width must agree",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            generate(pipeline, **changes)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_wan, tiny_cogvideox])
def test_parts_that_wait_on_the_cpu_compute_the_same(make: Callable[..., VideoBackbone]) -> None:
    """accelerate's hooks, with the CPU as the device on which everything runs."""
    for offload in ("model", "sequential"):
        backbone = make()
        side = awakened(backbone.new_side_network())
        pipeline = silent(PoseToVideoPipeline.from_backbone(backbone, side))
        drawn = {"pose_frames": poses(frames=9, height=24), "output_type": "pt"}
        expected = generate(pipeline, **drawn, num_inference_steps=2)
        if offload == "model":
            pipeline.enable_model_cpu_offload(device="cpu")
            hooked = [hook.model for hook in pipeline._all_hooks]
            assert any(model is side for model in hooked)
        else:
            for part in (pipeline.main_network, pipeline.vae, pipeline.text_encoder, side):
                cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)
            assert side.device.type == "meta"
        for _ in range(2):
            assert torch.equal(generate(pipeline, **drawn, num_inference_steps=2), expected)
        assert pipeline._execution_device.type == "cpu"


def test_a_group_of_offloaded_side_networks_is_brought_before_it_is_used(
    backbone: AnimateDiffBackbone,
) -> None:
    sides = [awakened(UNetSideNetwork.from_backbone(backbone)) for _ in range(2)]
    pipeline = silent(PoseToVideoPipeline.from_backbone(backbone, sides))
    brought: list[str] = []

    class Hook(ModelHook):
        def pre_forward(self, module: nn.Module, *args: object, **kwargs: object) -> tuple:
            brought.append(type(module).__name__)
            return args, kwargs

    add_hook_to_module(pipeline.side_network, Hook())
    generate(pipeline, pose_frames=[poses(), poses()], num_inference_steps=1)
    assert brought == ["SideNetworkGroup"]


@pytest.mark.parametrize("make", [pytest.param(tiny_backbone, marks=pytest.mark.slow), tiny_wan])
def test_compiled_networks_are_traced_once(make: Callable[..., VideoBackbone]) -> None:
    backbone = make() if make is tiny_backbone else make(num_layers=2)
    side = awakened(backbone.new_side_network())
    pipeline = silent(PoseToVideoPipeline.from_backbone(backbone, side))
    drawn = {"pose_frames": poses(frames=5, height=24), "num_inference_steps": 2}
    expected = generate(pipeline, **drawn)
    torch._dynamo.reset()
    main, own = CompileCounter(), CompileCounter()
    pipeline.main_network = torch.compile(pipeline.main_network, backend=main)
    pipeline.side_network = torch.compile(pipeline.side_network, backend=own)
    assert torch.equal(generate(pipeline, **drawn), expected)
    traced = main.frame_count, own.frame_count
    assert min(traced) > 0
    generate(pipeline, **drawn | {"num_inference_steps": 4})
    assert (main.frame_count, own.frame_count) == traced


def test_vae_options_reach_the_vae(
    pipeline: PoseToVideoPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    vae = pipeline.vae
    pipeline.enable_vae_slicing()
    pipeline.enable_vae_tiling()
    assert not caplog.records
    assert vae.use_slicing and vae.use_tiling
    assert generate(pipeline, output_type="pt").isfinite().all()
    pipeline.disable_vae_slicing()
    pipeline.disable_vae_tiling()
    assert not (vae.use_slicing or vae.use_tiling)


@pytest.mark.parametrize("make", [tiny_wan, tiny_cogvideox])
def test_tiles_of_a_vae_that_compresses_time_are_of_all_frames(
    make: Callable[..., VideoBackbone], caplog: pytest.LogCaptureFixture
) -> None:
    backbone = make(num_layers=1)
    side = backbone.new_side_network()
    pipeline = silent(PoseToVideoPipeline.from_backbone(backbone, side))
    pipeline.enable_vae_tiling()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "holds the whole decoded video" in message and "\n" not in message
    drawn = {"pose_frames": poses(frames=17, height=24), "num_inference_steps": 1}
    latents = generate(pipeline, **drawn)
    (video,) = pipeline.backbone.decode_chunks(latents)
    assert video.shape[:3] == (1, 17, 3)


def test_stream_makes_one_clip(pipeline: PoseToVideoPipeline) -> None:
    frames = list(
        pipeline.stream(
            "a man",
            poses(),
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(0),
        )
    )
    expected = generate(pipeline, output_type="pil")[0]
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 3
    np.testing.assert_array_equal(np.stack(frames), np.stack([np.asarray(e) for e in expected]))
    with pytest.raises(UserError, match="stream: makes one clip, and 2 are asked for"):
        pipeline.stream(["a", "b"], poses(), num_inference_steps=1)


def test_from_pretrained_takes_both_folders(pipeline: PoseToVideoPipeline, tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "backbone", pipeline.backbone)
    pipeline.side_network.save_pretrained(tmp_path / "side")
    loaded = PoseToVideoPipeline.from_pretrained(
        tmp_path / "backbone", side_network=tmp_path / "side"
    )
    expected = generate(silent(loaded))
    # Where weights lie in memory decides how sums of a single row are rounded.
    torch.testing.assert_close(generate(pipeline), expected, rtol=0, atol=1e-5)

    loaded.save_pretrained(tmp_path / "whole")
    whole = PoseToVideoPipeline.from_pretrained(tmp_path / "whole")
    assert torch.equal(generate(silent(whole)), expected)

    half = PoseToVideoPipeline.from_pretrained(
        tmp_path / "backbone", side_network=tmp_path / "side", dtype=torch.bfloat16
    )
    frames = generate(silent(half), output_type="pt")
    assert frames.dtype == torch.float32
    assert frames.isfinite().all()

    plain = AnimateDiffPipeline.from_pretrained(tmp_path / "backbone")
    assert plain.unet.config.block_out_channels == [16, 32]


def test_side_network_of_another_backbone_is_refused(backbone: AnimateDiffBackbone) -> None:
    side = UNetSideNetwork.from_backbone(tiny_backbone(seed=1))
    with pytest.raises(UserError, match="was made for another backbone"):
        PoseToVideoPipeline.from_backbone(backbone, side)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"control_start": 0.5, "control_end": 0.2}, "0 <= start <= end <= 1"),
        ({"control_end": 1.5}, "0 <= start <= end <= 1"),
        ({"output_type": "gif"}, "output_type 'gif' is not one of np, pt, pil, latent"),
        ({"pose_frames": poses()[0]}, r"expected \(batch, frames, 3, height, width\)"),
        ({"pose_frames": poses(height=30)}, r"\[32, 30\]: both must be multiples of 4"),
        ({"pose_frames": poses(frames=17)}, "frames=17: this backbone takes at most 16"),
        ({"prompt": ["a"] * 3, "pose_frames": poses(batch=2)}, "3 prompts and 2 pose sequences"),
        ({"negative_prompt": ["a"] * 2}, "negative_prompt: 2 texts for 1 clips"),
        ({"latents": torch.zeros(1, 4, 3, 4, 8)}, r"these pose frames need \(1, 4, 3, 8, 8\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    pipeline: PoseToVideoPipeline, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(pipeline, **changes)
