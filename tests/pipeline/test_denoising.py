"""Long video. In models whose frames know nothing of each other, windows must change nothing."""

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor, nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.long_video.noise import rescheduled
from lisa_video.long_video.settings import PromptFrom, PromptTravel, WindowSettings
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.pipeline.poses import EncodedPoses, PoseFrames
from lisa_video.poses import PoseSequence
from tests.tiny import awakened, tiny_backbone
from tests.tiny_cogvideox import tiny_cogvideox
from tests.tiny_wan import tiny_wan

AnyBackbone = TypeVar("AnyBackbone", bound=VideoBackbone)

FRAMES = 16
WINDOW = WindowSettings(frames=6, overlap=2)


def framewise(backbone: AnyBackbone) -> AnyBackbone:
    """Let attention over time, or over all tokens, add nothing."""
    for name, module in backbone.main_network.named_modules():
        moves = "motion_modules" in name and name.endswith("proj_out")
        if moves or name.endswith("attn1.to_out.0"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return backbone


def pipeline_of(backbone: VideoBackbone) -> PoseToVideoPipeline:
    side = awakened(backbone.new_side_network())
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def unet_pipeline() -> PoseToVideoPipeline:
    return pipeline_of(framewise(tiny_backbone()))


@pytest.fixture(scope="module")
def wan_pipeline() -> PoseToVideoPipeline:
    return pipeline_of(framewise(tiny_wan(num_layers=2)))


def poses(frames: int = FRAMES) -> Tensor:
    return torch.rand(1, frames, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def latents_of(pipeline: PoseToVideoPipeline, **changes: object) -> Tensor:
    settings = {
        "prompt": "a man",
        "pose_frames": poses(),
        "num_inference_steps": 3,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipeline(**(settings | changes)).frames


@pytest.mark.parametrize("scheduler", [None, EulerAncestralDiscreteScheduler()])
def test_windows_of_a_framewise_unet_make_what_one_clip_makes(
    unet_pipeline: PoseToVideoPipeline, scheduler: object
) -> None:
    own = unet_pipeline.scheduler
    unet_pipeline.scheduler = scheduler or own
    try:
        scales = [0.1 * frame for frame in range(FRAMES)]
        whole, windowed = (
            latents_of(unet_pipeline, window=window, control_scale=scales)
            for window in (None, WINDOW)
        )
    finally:
        unet_pipeline.scheduler = own
    torch.testing.assert_close(windowed, whole, rtol=0, atol=1e-3)  # of values up to 40
    assert windowed.device.type == "cpu"


def test_windows_of_a_framewise_transformer_make_what_one_clip_makes(
    wan_pipeline: PoseToVideoPipeline,
) -> None:
    """Without poses, which the causal encoder of each window sees from the window's start on."""
    changes = {"pose_frames": poses(41), "control_scale": 0.0}
    whole = latents_of(wan_pipeline, **changes)
    window = WindowSettings(frames=13, overlap=4)
    windowed = latents_of(wan_pipeline, window=window, **changes)
    torch.testing.assert_close(windowed, whole, rtol=0, atol=1e-4)
    controlled = latents_of(wan_pipeline, window=window, pose_frames=poses(41))
    assert controlled.shape == whole.shape
    assert controlled.isfinite().all() and not torch.equal(controlled, windowed)


def test_a_video_no_longer_than_a_window_is_made_at_once(
    unet_pipeline: PoseToVideoPipeline,
) -> None:
    window = WindowSettings(frames=FRAMES, overlap=4, noise="freenoise")
    assert torch.equal(latents_of(unet_pipeline, window=window), latents_of(unet_pipeline))


@pytest.mark.parametrize(
    ("make", "frames", "window", "latent_frames"),
    [
        (tiny_backbone, 23, WINDOW, 23),
        (lambda: tiny_wan(num_layers=1), 23, WindowSettings(9, 2), 7),
        (lambda: tiny_wan(num_layers=1), 6, WindowSettings(9, 2), 3),
        (lambda: tiny_cogvideox(num_layers=1), 19, WindowSettings(9, 1), 7),
    ],
)
def test_any_length_comes_out_as_long_as_its_poses(
    make: Callable[[], VideoBackbone],
    frames: int,
    window: WindowSettings,
    latent_frames: int,
) -> None:
    pipeline = pipeline_of(make())
    size = pipeline.backbone.frame_size or (16, 16)
    given = torch.rand(1, frames, 3, size[1], size[0])
    options = {"pose_frames": given, "window": window, "num_inference_steps": 1}
    assert latents_of(pipeline, **options).shape[2] == latent_frames
    video = latents_of(pipeline, **options, output_type="np")
    assert video.shape == (1, frames, size[1], size[0], 3)
    options["generator"] = torch.Generator().manual_seed(0)
    streamed = list(pipeline.stream("a man", **options))
    np.testing.assert_array_equal(np.stack(streamed), np.round(video[0] * 255).astype(np.uint8))


def test_inner_windows_of_a_causal_vae_see_the_poses_of_their_latent_frames() -> None:
    backbone = tiny_wan(num_layers=1)
    side = awakened(backbone.new_side_network())
    given = poses(41)
    encoded = EncodedPoses(backbone, side, PoseFrames(given, None), 1, torch.device("cpu"))
    with torch.no_grad():
        for start, stop in [(0, 3), (4, 7), (8, 11)]:
            clip = given[:, 4 * start : 4 * (stop - 1) + 1]
            assert torch.equal(encoded.window(start, stop), side.encode_poses(clip))


def test_encoded_poses_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    side = backbone.new_side_network()
    calls: list[int] = []
    side.pose_encoder.register_forward_hook(lambda *_: calls.append(1))
    encoded = EncodedPoses(backbone, side, PoseFrames(poses(), None), 1, torch.device("cpu"))
    with torch.no_grad():
        once = encoded.window(0, 6)
        assert encoded.window(0, 6) is once
        assert len(calls) == 1
        monkeypatch.setattr("lisa_video.pipeline.poses.KEPT_BYTES", 2 * once.nbytes)
        for start in (2, 4, 0):
            encoded.window(start, start + 6)
        assert len(calls) == 4  # the first had to go


def test_a_sequence_is_drawn_window_by_window(
    unet_pipeline: PoseToVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lisa_video.pipeline import poses as module

    keypoints = np.random.default_rng(0).uniform(1, 31, (40, 1, 18, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    sequence = PoseSequence(keypoints, width=32, height=32, fps=10)
    lengths: list[int] = []
    draw = module.draw_pose_frames
    monkeypatch.setattr(
        module, "draw_pose_frames", lambda kp, *a: (lengths.append(len(kp)), draw(kp, *a))[1]
    )
    made = latents_of(unet_pipeline, pose_frames=sequence, window=WINDOW, num_inference_steps=1)
    assert made.shape[2] == 40
    assert set(lengths) == {6}
    drawn = torch.from_numpy(draw(keypoints, (32, 32), (32, 32)))[None]
    expected = latents_of(unet_pipeline, pose_frames=drawn, window=WINDOW, num_inference_steps=1)
    assert torch.equal(made, expected)


def test_prompt_travel_interpolates_text_from_frame_to_frame(
    unet_pipeline: PoseToVideoPipeline,
) -> None:
    """In windows of one frame of a framewise model, each frame has its own text."""
    travel = PromptTravel((PromptFrom(0, "a man"), PromptFrom(8, "two")), blend=4)
    window = WindowSettings(frames=1, overlap=0)
    made = latents_of(unet_pipeline, prompt=travel, window=window)
    for prompt, frames in (("a man", slice(0, 6)), ("two", slice(10, 16))):
        alone = latents_of(unet_pipeline, prompt=prompt)
        torch.testing.assert_close(made[:, :, frames], alone[:, :, frames], rtol=0, atol=1e-4)
        assert not torch.allclose(made[:, :, 7], alone[:, :, 7], atol=1e-3)


def test_freenoise_is_what_a_long_video_starts_from(unet_pipeline: PoseToVideoPipeline) -> None:
    started: list[Tensor] = []
    scheduler = unet_pipeline.scheduler
    step = scheduler.step
    scheduler.step = lambda prediction, t, latents, **k: (
        started.append(latents.clone()),
        step(prediction, t, latents, **k),
    )[1]
    try:
        latents_of(unet_pipeline, window=WindowSettings(6, 2, "freenoise"), num_inference_steps=1)
    finally:
        del scheduler.step
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, FRAMES, 4, 4, generator=generator)
    assert torch.equal(started[0], rescheduled(noise, 6, 4, generator))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": WindowSettings(20, 4), "pose_frames": poses(30)}, "window.frames=20: .* 16"),
        ({"control_scale": [1.0, 0.5]}, "control_scale: 2 values for 16 frames"),
        (
            {"prompt": PromptTravel((PromptFrom(0, "a"), PromptFrom(16, "b")))},
            "one starts at frame 16, and the video has 16",
        ),
        (
            {
                "prompt": PromptTravel((PromptFrom(0, "a"),)),
                "pose_frames": poses().repeat(2, 1, 1, 1, 1),
            },
            "prompt travel makes one clip, and there are 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    unet_pipeline: PoseToVideoPipeline, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        latents_of(unet_pipeline, **changes)


def test_windows_must_fit_the_vae(wan_pipeline: PoseToVideoPipeline) -> None:
    for window, message in [
        (WindowSettings(12, 4), "window.frames=12: .* 9 or 13 would fit"),
        (WindowSettings(5, 4), None),
        (WindowSettings(1, 0), "are 1 latent frames, and an overlap of 0 takes 1 of them"),
    ]:
        if message is None:
            assert latents_of(wan_pipeline, pose_frames=poses(13), window=window).shape[2] == 4
            continue
        with pytest.raises(UserError, match=message):
            latents_of(wan_pipeline, pose_frames=poses(41), window=window)


def test_cut_prompts_are_told_in_one_line(
    unet_pipeline: PoseToVideoPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        latents_of(unet_pipeline, prompt="a man a man a man a man a man in a hat")
    (message,) = [record.getMessage() for record in caplog.records if "cut off" in record.message]
    assert message == (
        "warning: prompt is too long for the text encoder (12 tokens), cut off: 'in a hat'"
    )
