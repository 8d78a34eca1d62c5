"""From the clips of a batch to what the networks read.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.batches import Batch
from lisa_video.training.config import AlignmentConfig, LossConfig, TrainConfig
from lisa_video.training.draws import draw
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.losses import Conditions, NoisedLatents, noise_latents
from lisa_video.weighting import min_snr_weight, score_weight


def prepare_batch(
    config: TrainConfig, encoder: ClipEncoder, batch: Batch
) -> tuple[NoisedLatents, Conditions]:
    """Encode, noise and drop: what the networks read of a batch, on the backbone's device."""
    backbone, clips = encoder.backbone, batch.clips
    device = backbone.device
    latents = encoder.batch_latents(clips)
    draws = draw(config, backbone, batch.positions, latents.shape[1:])
    pose_kept = ~draws.pose_dropped
    weights = clips.frame_weights
    if not config.alignment.frame_weighting:
        weights = torch.ones_like(weights)
    noised = noise_latents(backbone, latents, draws.noise.to(device), draws.timesteps.to(device))
    noised = replace(
        noised,
        main_weights=timestep_weights(config.loss, backbone, noised.timesteps),
        alignment_weights=timestep_weights(config.alignment, backbone, noised.timesteps),
    )
    conditions = Conditions(
        text=encoder.batch_text(clips, draws.text_dropped.tolist()),
        pose_frames=(clips.pose_frames * rearrange(pose_kept, "b -> b 1 1 1 1")).to(device),
        frame_weights=backbone.latent_frame_means(weights * rearrange(pose_kept, "b -> b 1")).to(
            device
        ),
    )
    return noised, conditions


def timestep_weights(
    settings: LossConfig | AlignmentConfig, backbone: VideoBackbone, timesteps: Tensor
) -> Tensor | None:
    """Weights (B,) of the errors at `timesteps` (B,); None where all are 1."""
    if settings.weighting == "none":
        return None
    kind = backbone.prediction_type
    a, s = (values.flatten() for values in backbone.signal_and_noise(timesteps))
    if settings.weighting == "score":
        return score_weight(kind, a, s)
    return min_snr_weight(kind, a, s, settings.gamma)
