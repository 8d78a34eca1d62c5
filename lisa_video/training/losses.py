"""The losses of both objectives, as METHOD's one line says: main + alignment_weight * alignment.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
Source: Wang et al., "LISA", arXiv:2606.27192.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lisa_video.alignment import (
    AlignmentTerms,
    alignment_loss,
    likelihood_target,
    mean_alignment,
)
from lisa_video.backbones.base import VideoBackbone
from lisa_video.injection import clip_rows
from lisa_video.predictions import add_noise, regression_target
from lisa_video.training.agreement import mean_over_processes
from lisa_video.training.config import aligned_count


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
    main_weights: Tensor | None = None
    """(B,), of the clips in the main loss; None weighs all 1."""
    alignment_weights: Tensor | None = None
    """(B,), of the clips in the alignment loss; None weighs all 1."""


@dataclass(frozen=True)
class LisaObjective:
    """What the LISA objective adds to the plain one in a step."""

    decoder: nn.Module
    """`TapDecoders`, bare or wrapped for distributed training."""
    taps: Sequence[str]
    """Injection points whose features they read."""
    weight: float
    """lambda of the step."""
    fraction: float = 1.0
    """Share of each batch that it is made of."""


@dataclass(frozen=True)
class LossTerms:
    """The loss of a batch and its parts: float32 scalars; all but `total` are detached."""

    total: Tensor
    """main + weight * alignment, with gradient."""
    main: Tensor
    """Mean squared error of the controlled prediction."""
    alignment: AlignmentTerms | None = None
    """The alignment loss without lambda, with its frames, mean over taps; None under the plain
    objective."""
    taps: Tensor | None = None
    """(K,), the alignment loss of each tap; None under the plain objective."""
    prior: Tensor | None = None
    """Mean squared error of the prior prediction, which the plain objective never makes."""
    controlled: Tensor | None = None
    """`main` of the clips that have a prior."""


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
    are normalised within the clips that have an alignment loss, those of all processes, which call
    this together.
    """
    side = backbone.side_output(
        side_network, noised.noisy, noised.timesteps, conditions.text, conditions.pose_frames
    )
    noisy = noised.noisy.to(backbone.dtype)
    residuals = side.residuals.to(backbone.dtype)
    if lisa is None:
        controlled = backbone.predict(noisy, noised.timesteps, conditions.text, residuals)
        main = _main_loss(controlled, noised)
        return LossTerms(total=main, main=main.detach())

    batch, frames, size = len(noisy), noisy.shape[2], tuple(noisy.shape[-2:])
    clips = aligned_clips(batch, lisa.fraction, noisy.device)
    controlled, prior = backbone.predict_with_prior(
        noisy, noised.timesteps, conditions.text, residuals, clips
    )
    main = _main_loss(controlled, noised)
    features = {tap: side.taps[tap] for tap in lisa.taps}
    frame_weights, aligned, controlled_part = conditions.frame_weights, noised, main.detach()
    if clips is not None:
        features = {tap: clip_rows(each, clips, batch) for tap, each in features.items()}
        frame_weights, aligned = frame_weights[clips], _some(noised, clips)
        controlled_part = _main_loss(controlled.detach()[clips], aligned)
    predicted = lisa.decoder(features, aligned.timesteps, frames, size)
    target = likelihood_target(aligned.target, prior.float())
    weight_sum = mean_over_processes(frame_weights.sum())
    by_tap = [
        alignment_loss(predicted[tap], target, frame_weights, aligned.alignment_weights, weight_sum)
        for tap in lisa.taps
    ]
    alignment = mean_alignment(by_tap)
    return LossTerms(
        total=main + lisa.weight * alignment.loss,
        main=main.detach(),
        alignment=alignment,
        taps=torch.stack([each.loss.detach() for each in by_tap]),
        prior=_main_loss(prior, aligned),
        controlled=controlled_part,
    )


def aligned_clips(batch: int, fraction: float, device: torch.device) -> Tensor | None:
    """Indices of the clips of a batch that have an alignment loss, long (P,); None: all of them.

    Evenly spaced, so that they are the same clips where a batch is split evenly over passes and
    processes and each part has its share. Batches are shuffled: any place in them is as good.
    """
    count = aligned_count(batch, fraction)
    if count == batch:
        return None
    return torch.tensor([index * batch // count for index in range(count)], device=device)


def _main_loss(prediction: Tensor, noised: NoisedLatents) -> Tensor:
    """Mean squared error, weighted by timestep."""
    if noised.main_weights is None:
        return mse_loss(prediction.float(), noised.target)
    errors = (prediction.float() - noised.target).square()
    return (noised.main_weights * reduce(errors, "b c t h w -> b", "mean")).mean()


def _some(noised: NoisedLatents, clips: Tensor) -> NoisedLatents:
    main, alignment = noised.main_weights, noised.alignment_weights
    return NoisedLatents(
        noisy=noised.noisy[clips],
        target=noised.target[clips],
        timesteps=noised.timesteps[clips],
        main_weights=None if main is None else main[clips],
        alignment_weights=None if alignment is None else alignment[clips],
    )


def explained_share(controlled_loss: float, prior_loss: float) -> float:
    """1 - mse(controlled, target) / mse(prior, target), of which the prior loss is above 0.

    That is the share of the likelihood target, target - prior, which controlled - prior accounts
    for: 0 where control does nothing, negative where it makes the prediction worse.
    """
    return 1 - controlled_loss / prior_loss


def scalars(terms: LossTerms) -> Tensor:
    """What is logged of one pass, detached: (2,), or (6 + K + T,) with the alignment loss of K taps.

    All passes and processes of a step have the alignment loss, or none has it.
    """
    main = torch.stack([terms.total.detach(), terms.main])
    alignment = terms.alignment
    if alignment is None:
        return main
    assert terms.prior is not None and terms.controlled is not None and terms.taps is not None
    aligned = [alignment.loss.detach(), alignment.target_norm, terms.prior, terms.controlled]
    return torch.cat([main, torch.stack(aligned), terms.taps, alignment.per_frame.mean(dim=0)])


def log_values(means: Tensor, lisa: LisaObjective | None) -> dict[str, float | list[float]]:
    """Means of `scalars` over passes and processes, by name.

    `loss` and `main`; in a step with the alignment loss also `alignment`, its weight
    `alignment_weight`, `target_norm`, the `ratio` of both (1: the decoder explains nothing of the
    likelihood target), `prior`, the share `explained` by the controlled prediction, and
    `frame_shares`, each latent frame's share of the alignment loss. Of several taps each has its
    `alignment/TAP` and `ratio/TAP`.
    """
    loss, main, *more = means.tolist()
    values: dict[str, float | list[float]] = {"loss": loss, "main": main}
    if lisa is None:
        return values
    alignment, target_norm, prior, controlled, *more = more
    by_tap, frames = more[: len(lisa.taps)], more[len(lisa.taps) :]
    whole = sum(frames) or 1.0
    if len(by_tap) > 1:
        for tap, each in zip(lisa.taps, by_tap, strict=True):
            values |= {f"alignment/{tap}": each, f"ratio/{tap}": _ratio(each, target_norm)}
    return values | {
        "alignment": alignment,
        "alignment_weight": lisa.weight,
        "target_norm": target_norm,
        "ratio": _ratio(alignment, target_norm),
        "prior": prior,
        # Clips of pure noise may weigh nothing at all.
        "explained": explained_share(controlled, prior) if prior else 0.0,
        "frame_shares": [frame / whole for frame in frames],
    }


def _ratio(loss: float, target_norm: float) -> float:
    return loss / target_norm if target_norm else 0.0
