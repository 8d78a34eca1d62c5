"""Generate for held-out poses with a side network at some step of its training, and score what came out.

Shape legend: N clips, F frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lisa_video.backbones.base import VideoBackbone
from lisa_video.comparison.config import Scored
from lisa_video.dataset import Clip, ClipDataset, collate
from lisa_video.detectors import build_detector
from lisa_video.detectors.base import PoseDetector
from lisa_video.errors import UserError
from lisa_video.evaluation import PoseScores, score_clips
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.side_networks.base import SideNetwork


@dataclass(frozen=True)
class HeldOutClips:
    """The clips that every arm generates for, and the detector that looks at the results."""

    clips: list[Clip]
    detector: PoseDetector

    @classmethod
    def from_config(
        cls, config: Scored, *, count: int | None = None, frames: int | None = None
    ) -> HeldOutClips:
        """The first clips of the validation split: `score.clips` as long as those of training,
        where nothing else is asked for.

        Raises:
            UserError: it has fewer, or the detector is unknown.
        """
        data, count = config.training.data, count or config.score.clips
        dataset = ClipDataset(
            data.root,
            data.validation_split,
            frames=frames or data.frames,
            stride=data.stride,
            size=data.size,
            seed=config.score.seed,
            fps=data.fps,
        )
        if len(dataset) < count:
            raise UserError(
                f"{data.root}: split '{data.validation_split}' has {len(dataset)} clips, {count} "
                "are to be scored"
            )
        clips = [dataset[index] for index in range(count)]
        return cls(
            clips, build_detector(config.score.detector, weights=config.score.detector_weights)
        )

    def ceiling(self) -> PoseScores:
        """The detector's own score on the true clips: no generated clip can be expected to beat it."""
        return score_clips(((c.id, c.pixels, c.poses) for c in self.clips), self.detector)

    def generate(self, backbone: VideoBackbone, side: SideNetwork, config: Scored) -> np.ndarray:
        """Clips for the held-out poses and captions: uint8 (N, F, H, W, 3)."""
        batch = collate(self.clips)
        pipeline = PoseToVideoPipeline.from_backbone(backbone, side)
        pipeline.set_progress_bar_config(disable=True)
        was_training = side.training
        side.eval()
        output = pipeline(
            batch.captions,
            batch.pose_frames,
            num_inference_steps=config.score.inference_steps,
            guidance_scale=config.score.guidance_scale,
            generator=torch.Generator().manual_seed(config.score.seed),
            output_type="np",
        )
        side.train(was_training)
        return np.round(np.asarray(output.frames) * 255).astype(np.uint8)

    def score(self, generated: np.ndarray) -> PoseScores:
        """Scores of generated clips, (N, F, H, W, 3), against the poses asked for."""
        pairs = zip(self.clips, generated, strict=True)
        return score_clips(((c.id, frames, c.poses) for c, frames in pairs), self.detector)
