"""Generation for held-out poses, and how well a detector finds them in what came out.

Shapes: N clips, M of them, F video frames, T latent frames, C latent channels, H W pixels,
h w latent cells.
"""

from __future__ import annotations

import copy
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
from lisa_video.pipeline.denoising import Denoising
from lisa_video.pipeline.outputs import as_bytes, collected
from lisa_video.pipeline.request import prepare
from lisa_video.pipeline.text import TextStates
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

    @torch.no_grad()
    def generate(
        self,
        backbone: VideoBackbone,
        side: SideNetwork | Sequence[SideNetwork],
        sampling: Sampling,
        *,
        places: Sequence[int] | None = None,
        text: TextStates | None = None,
        conditions: Sequence[Tensor] | None = None,
        scales: Sequence[float] | None = None,
    ) -> NDArray[np.uint8]:
        """Clips for the poses and captions of all clips, or of those at `places`.

        The initial noise of a clip depends on the seed, and on its place among all clips. `text`
        has the states of the captions, and of as many empty ones, of all clips; without it the
        text encoder is asked. Several side networks take a condition (M, F, 3, H, W) and a scale
        each.

        Returns:
            uint8 (M, F, H, W, 3), M the number of places: what the pipeline makes of them.
        """
        chosen = list(range(len(self.clips)) if places is None else places)
        batch = collate([self.clips[place] for place in chosen])
        own = copy.copy(backbone)
        own.scheduler = backbone.scheduler.from_config(backbone.scheduler.config)
        generator = torch.Generator().manual_seed(sampling.seed)
        networks = [side] if isinstance(side, SideNetwork) else list(side)
        was_training = [network.training for network in networks]
        for network in networks:
            network.eval()
        request = prepare(
            own,
            networks,
            own.scheduler,
            backbone.device,
            prompt=batch.captions if text is None else None,
            poses=[batch.pose_frames] if conditions is None else conditions,
            size=None,
            negative_prompt="",
            embeds=(None, None) if text is None else _states(text, chosen),
            steps=sampling.inference_steps,
            guided=sampling.guidance_scale > 1,
            scales=1.0 if scales is None else scales,
            span=(0.0, 1.0),
            share_control=False,
            window=None,
            generator=generator,
            latents=self._noise(backbone, generator)[chosen],
            output_type="np",
        )
        denoising = Denoising(request, backbone.device)
        for index in range(len(request.sampler.timesteps)):
            denoising.step(index, sampling.guidance_scale)
        for network, mode in zip(networks, was_training, strict=True):
            network.train(mode)
        made = collected(backbone.decode_chunks(denoising.latents), request.frames, "np")
        return as_bytes(np.asarray(made.frames))

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


def _states(text: TextStates, places: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Of the captions at `places`, and of the empty ones."""
    index = list(places)
    return text.prompt[index], None if text.negative is None else text.negative[index]
