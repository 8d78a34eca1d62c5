"""The memory of a long video does not depend on its length, but for its latents: exact counts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lisa_video.backbones.base import VideoBackbone
from lisa_video.long_video.settings import WindowSettings
from lisa_video.memory.measured import peak_allocated
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.poses import PoseSequence
from tests.tiny import awakened, tiny_backbone
from tests.tiny_cogvideox import tiny_cogvideox
from tests.tiny_wan import tiny_wan

WIDTH, HEIGHT = 32, 24
COPIES = 3
"""A step holds the latents, scaled, and their prediction; decoding holds no more copies."""
BOOKKEEPING = 64
"""Bytes a frame: control scales, window weights."""


def poses(frames: int) -> PoseSequence:
    keypoints = np.random.default_rng(0).uniform(1, 23, (frames, 1, 18, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    return PoseSequence(keypoints, width=WIDTH, height=HEIGHT, fps=8)


def peaks(pipeline: PoseToVideoPipeline, window: WindowSettings, frames: int) -> tuple[int, int]:
    """Bytes held at once to make latents, and to make and decode them."""
    options = {
        "prompt": "a man",
        "pose_frames": poses(frames),
        "width": WIDTH,
        "height": HEIGHT,
        "num_inference_steps": 2,
        "window": window,
    }

    def stream() -> None:
        assert sum(1 for _ in pipeline.stream(**options)) == frames

    cpu = torch.device("cpu")
    denoising = peak_allocated(lambda: pipeline(**options, output_type="latent"), cpu)
    return denoising, peak_allocated(stream, cpu)


@pytest.mark.parametrize(
    ("make", "window", "two", "six"),
    [
        # Decoded 16 frames at a time, of which both are multiples.
        (tiny_backbone, WindowSettings(16, 0), 32, 96),
        (lambda: tiny_wan(num_layers=2), WindowSettings(13, 4), 25, 73),
        (lambda: tiny_cogvideox(num_layers=2), WindowSettings(17, 4), 33, 97),
    ],
    ids=["animatediff", "wan", "cogvideox"],
)
def test_six_windows_take_what_two_take_and_their_latents(
    make: Callable[[], VideoBackbone],
    window: WindowSettings,
    two: int,
    six: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = make()
    side = awakened(backbone.new_side_network())
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side)
    pipeline.set_progress_bar_config(disable=True)
    # Encoded poses are kept within a bound that these small videos do not reach.
    monkeypatch.setattr("lisa_video.pipeline.poses.KEPT_BYTES", 0)
    cells = WIDTH * HEIGHT // backbone.vae_scale_factor**2
    later = backbone.latent_frames(six) - backbone.latent_frames(two)
    latents = 4 * backbone.latent_channels * cells * later
    few, many = (peaks(pipeline, window, frames) for frames in (two, six))
    for before, after in zip(few, many, strict=True):
        assert after - before <= COPIES * latents + BOOKKEEPING * (six - two), (few, many)
