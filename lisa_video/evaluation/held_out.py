"""Generation for held-out poses, and how well a detector finds them in what came out.

Shapes: N clips, M of them, F video frames, T latent frames, C latent channels, H W pixels,
h w latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.dataset import Clip, collate
from lisa_video.detectors.base import PoseDetector
from lisa_video.evaluation.pose_scores import PoseScores, score_clips
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.side_networks.base import SideNetwork


class Sampling(Protocol):
    """How clips are generated: a section of a job's config."""

    @property
    def inference_steps(self) -> int:
        """Sampler steps."""

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance of the text."""

    @property
    def seed(self) -> int:
        """Of the initial noise."""


@dataclass(frozen=True)
class HeldOutClips:
    """Clips that were not trained on, all of one length and size, and the detector that scores."""

    clips: list[Clip]
    detector: PoseDetector

    def ceiling(self) -> PoseScores:
        """The detector's own score on the true clips: no generated clip can be expected to beat it."""
        return score_clips(((c.id, c.pixels, c.poses) for c in self.clips), self.detector)

    def generate(
        self,
        backbone: VideoBackbone,
        side: SideNetwork | Sequence[SideNetwork],
        sampling: Sampling,
        *,
        places: Sequence[int] | None = None,
        conditions: Sequence[Tensor] | None = None,
        scales: Sequence[float] | None = None,
    ) -> NDArray[np.uint8]:
        """Clips for the poses and captions of all clips, or of those at `places`.

        The initial noise of a clip depends on the seed, and on its place among all clips. Several
        side networks take a condition (M, F, 3, H, W) and a scale each.

        Returns:
            uint8 (M, F, H, W, 3), M the number of places.
        """
        places = range(len(self.clips)) if places is None else places
        batch = collate([self.clips[place] for place in places])
        generator = torch.Generator().manual_seed(sampling.seed)
        noise = self._noise(backbone, generator)
        pipeline = PoseToVideoPipeline.from_backbone(backbone, side)
        pipeline.set_progress_bar_config(disable=True)
        networks = [side] if isinstance(side, SideNetwork) else list(side)
        was_training = [network.training for network in networks]
        for network in networks:
            network.eval()
        output = pipeline(
            batch.captions,
            batch.pose_frames if conditions is None else list(conditions),
            control_scale=1.0 if scales is None else list(scales),
            num_inference_steps=sampling.inference_steps,
            guidance_scale=sampling.guidance_scale,
            latents=noise[list(places)],
            generator=generator,
            output_type="np",
        )
        for network, mode in zip(networks, was_training, strict=True):
            network.train(mode)
        return np.round(np.asarray(output.frames) * 255).astype(np.uint8)

    def score(self, generated: NDArray[np.uint8]) -> PoseScores:
        """Scores of generated clips, (N, F, H, W, 3), against the poses asked for."""
        pairs = zip(self.clips, generated, strict=True)
        return score_clips(((c.id, frames, c.poses) for c, frames in pairs), self.detector)

    def _noise(self, backbone: VideoBackbone, generator: torch.Generator) -> Tensor:
        """Of all clips: (N, C, T, h, w)."""
        frames, height, width, _ = self.clips[0].pixels.shape
        factor = backbone.vae_scale_factor
        shape = (
            len(self.clips),
            backbone.latent_channels,
            backbone.latent_frames(frames),
            height // factor,
            width // factor,
        )
        return torch.randn(shape, generator=generator)
