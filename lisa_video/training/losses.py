"""The losses of both objectives, as METHOD's one line says: main + alignment_weight * alignment.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
Source: Wang et al., "LISA", arXiv:2606.27192.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lisa_video.alignment import AlignmentTerms, alignment_loss, likelihood_target
from lisa_video.backbones.base import VideoBackbone
from lisa_video.predictions import add_noise, regression_target


@dataclass(frozen=True)
class Conditions:
    """What guides the backbone and the side network."""

    text: Tensor
    """(B, L, D), in the backbone's dtype."""
    pose_frames: Tensor
    """Drawn poses: float32 (B, F, 3, H, W) in [0, 1]; black where there is no pose."""
    frame_weights: Tensor
    """(B, T) in [0, 1]. They weigh the alignment loss alone: it asks what the pose adds, which
    means nothing in a frame without one, while the main loss asks for the video, which such a frame
    shows as well as any other."""


@dataclass(frozen=True)
class NoisedLatents:
    """Latents on their way to noise, and what the backbone should predict there."""

    noisy: Tensor
    """x_t: float32 (B, C, T, h, w)."""
    target: Tensor
    """Regression target of the backbone's prediction type: float32 (B, C, T, h, w)."""
    timesteps: Tensor
    """(B,): long, or float32 where the prediction type is flow."""


@dataclass(frozen=True)
class LisaObjective:
    """What the LISA objective adds to the plain one."""

    decoder: nn.Module
    """A `LisaDecoder`, bare or wrapped for distributed training."""
    tap: str
    """Injection point whose feature it reads."""
    weight: float
    """lambda."""


@dataclass(frozen=True)
class LossTerms:
    """The loss of a batch and its parts: float32 scalars; all but `total` are detached."""

    total: Tensor
    """main + weight * alignment, with gradient."""
    main: Tensor
    """Mean squared error of the controlled prediction."""
    alignment: AlignmentTerms | None = None
    """The alignment loss, unweighted, with its frames; None under the plain objective."""
    prior: Tensor | None = None
    """Mean squared error of the prior prediction; None under the plain objective, which never makes
    that prediction."""


def noise_latents(
    backbone: VideoBackbone, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> NoisedLatents:
    """Noise latents (B, C, T, h, w) to `timesteps` (B,), in float32 whatever their dtype."""
    clean = latents.float()
    a, s = backbone.signal_and_noise(timesteps)
    return NoisedLatents(
        noisy=add_noise(clean, noise, a, s),
        target=regression_target(backbone.prediction_type, clean, noise, a, s),
        timesteps=timesteps,
    )


def training_losses(
    backbone: VideoBackbone,
    side_network: nn.Module,
    noised: NoisedLatents,
    conditions: Conditions,
    lisa: LisaObjective | None,
) -> LossTerms:
    """Losses of the LISA objective, or of the plain one where `lisa` is None.

    `side_network` is one of the backbone, bare or wrapped for mixed precision and distributed
    training. The backbone runs in its own dtype, every loss is computed in float32. Frame weights
    are normalised within the batch.
    """
    side = backbone.side_output(
        side_network, noised.noisy, noised.timesteps, conditions.text, conditions.pose_frames
    )
    noisy = noised.noisy.to(backbone.dtype)
    residuals = side.residuals.to(backbone.dtype)
    if lisa is None:
        controlled = backbone.predict(noisy, noised.timesteps, conditions.text, residuals)
        main = mse_loss(controlled.float(), noised.target)
        return LossTerms(total=main, main=main.detach())

    controlled, prior = backbone.predict_with_prior(
        noisy, noised.timesteps, conditions.text, residuals
    )
    main = mse_loss(controlled.float(), noised.target)
    frames, size = noisy.shape[2], tuple(noisy.shape[-2:])
    alignment = alignment_loss(
        lisa.decoder(side.taps[lisa.tap], noised.timesteps, frames, size),
        likelihood_target(noised.target, prior.float()),
        conditions.frame_weights,
    )
    return LossTerms(
        total=main + lisa.weight * alignment.loss,
        main=main.detach(),
        alignment=alignment,
        prior=mse_loss(prior.float(), noised.target),
    )


def explained_share(controlled_loss: float, prior_loss: float) -> float:
    """1 - mse(controlled, target) / mse(prior, target), of which the prior loss is above 0.

    That is the share of the likelihood target, target - prior, which controlled - prior accounts
    for: 0 where control does nothing, negative where it makes the prediction worse.
    """
    return 1 - controlled_loss / prior_loss


def scalars(terms: LossTerms) -> Tensor:
    """What is logged of one pass, detached: (2,), or (5 + T,) under the LISA objective."""
    main = torch.stack([terms.total.detach(), terms.main])
    if terms.alignment is None or terms.prior is None:
        return main
    aligned = torch.stack([terms.alignment.loss.detach(), terms.alignment.target_norm, terms.prior])
    return torch.cat([main, aligned, terms.alignment.per_frame.mean(dim=0)])


def log_values(means: Tensor) -> dict[str, float | list[float]]:
    """Means of `scalars` over passes and processes, by name.

    `loss` and `main`; under the LISA objective also `alignment`, `target_norm`, their `ratio`
    (1: the decoder explains nothing of the likelihood target), `prior`, the share `explained` by
    the controlled prediction, and `frame_shares`, each latent frame's share of the alignment loss.
    """
    loss, main, *more = means.tolist()
    values: dict[str, float | list[float]] = {"loss": loss, "main": main}
    if not more:
        return values
    alignment, target_norm, prior, *frames = more
    whole = sum(frames) or 1.0
    return values | {
        "alignment": alignment,
        "target_norm": target_norm,
        "ratio": alignment / target_norm if target_norm else 0.0,
        "prior": prior,
        "explained": explained_share(main, prior),
        "frame_shares": [frame / whole for frame in frames],
    }
