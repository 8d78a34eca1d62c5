"""Generation for held-out poses: the pipeline's own clips, in whole or in shares."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.dataset import Clip, collate
from lisa_video.evaluation.held_out import HeldOutClips
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.side_networks.unet import UNetSideNetwork
from tests.evaluation.dots import DotDetector, dot_frames, dot_poses
from tests.tiny import awakened, tiny_backbone

FRAMES = 3


@dataclass(frozen=True)
class Settings:
    inference_steps: int = 2
    guidance_scale: float = 2.0
    seed: int = 5


def held_out_clip(index: int) -> Clip:
    poses = dot_poses(2.0 * index, frames=FRAMES)
    pose_frames = np.full((FRAMES, 3, poses.height, poses.width), 40 * index, np.uint8)
    caption = f"a man {index}"
    weights = poses.frame_weights()
    return Clip(f"clip {index}", dot_frames(poses), poses, pose_frames, weights, caption, start=0)


@pytest.fixture(scope="module")
def backbone() -> AnimateDiffBackbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def side(backbone: AnimateDiffBackbone) -> UNetSideNetwork:
    return awakened(UNetSideNetwork.from_backbone(backbone))


@pytest.fixture(scope="module")
def held_out() -> HeldOutClips:
    return HeldOutClips([held_out_clip(index) for index in range(3)], DotDetector())


def test_clips_are_those_of_the_pipeline(
    backbone: AnimateDiffBackbone, side: UNetSideNetwork, held_out: HeldOutClips
) -> None:
    batch, settings = collate(held_out.clips), Settings()
    side.train()
    generated = held_out.generate(backbone, side, settings)
    assert side.training
    side.eval()
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side)
    expected = pipeline(
        batch.captions,
        batch.pose_frames,
        num_inference_steps=settings.inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=torch.Generator().manual_seed(settings.seed),
    ).frames
    np.testing.assert_array_equal(generated, np.round(np.asarray(expected) * 255))
    assert (held_out.generate(backbone, side, Settings(seed=6)) != generated).any()


def test_shares_make_the_whole(
    backbone: AnimateDiffBackbone, side: UNetSideNetwork, held_out: HeldOutClips
) -> None:
    whole = held_out.generate(backbone, side, Settings())
    parts = [
        held_out.generate(backbone, side, Settings(), places=places) for places in ([2, 0], [1])
    ]
    shared = np.concatenate(parts)[[1, 2, 0]]
    assert np.abs(shared.astype(int) - whole).max() <= 1


def test_the_detectors_own_score_is_the_ceiling(held_out: HeldOutClips) -> None:
    ceiling = held_out.ceiling().total.metrics()
    assert ceiling["pck@0.1"] == 1
    true = np.stack([clip.pixels for clip in held_out.clips])
    assert held_out.score(true).total.metrics() == ceiling
    assert held_out.score(true[::-1]).total.metrics()["keypoint_distance"] > 0.005
    assert held_out.score(0 * true).total.metrics()["pck@0.2"] == 0
