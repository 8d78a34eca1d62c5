"""Likelihood score alignment: the target and the frame-wise loss of the side network's own part.

Shapes: B batch, C latent channels, F frames (latent frames where the VAE compresses time),
h w latent cells. Source: Wang et al., "LISA", arXiv:2606.27192.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor


@dataclass(frozen=True)
class AlignmentTerms:
    """The alignment loss with the numbers that tell how much of its target is explained."""

    loss: Tensor
    """Scalar with gradient: mean squared error, weighted over frames."""
    per_frame: Tensor
    """(B, F), detached: mean squared error of each frame, times its clip's weight; 0 for a frame
    without weight."""
    target_norm: Tensor
    """Scalar, detached: the same weighted mean of the squared target."""
    ratio: Tensor
    """Scalar, detached: loss / target_norm. 1 means nothing explained, 0 everything."""


def likelihood_target(target: Tensor, prior: Tensor) -> Tensor:
    """regression target - prior prediction, detached (the likelihood score up to k(t))."""
    assert target.shape == prior.shape, (target.shape, prior.shape)
    return (target - prior).detach()


def alignment_loss(
    prediction: Tensor,
    target: Tensor,
    frame_weights: Tensor | None = None,
    clip_weights: Tensor | None = None,
    weight_sum: Tensor | None = None,
) -> AlignmentTerms:
    """Mean squared error per frame, then averaged over frames with `frame_weights`.

    `prediction` and `target` are (B, C, F, h, w); `frame_weights` is (B, F), and None weighs every
    frame alike, which equals the plain mean squared error. Computed in float32 at least. A frame
    whose weight is not above 0 is left out before any arithmetic, so NaN in it reaches neither
    the loss nor a gradient; if no frame has weight, the loss is 0 and still has a (zero) gradient.
    `clip_weights` (B,) multiply the errors and the target norm of a clip; they are not normalised.
    Where these frames are one of several equal parts, `weight_sum` (), the mean over parts of the sum
    of frame weights, makes the mean of the parts' losses that of all frames.
    """
    assert prediction.shape == target.shape, (prediction.shape, target.shape)
    batch, _, frames, _, _ = prediction.shape
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    prediction, target = prediction.to(dtype), target.detach().to(dtype)

    if frame_weights is None:
        weights = prediction.new_ones(batch, frames)
    else:
        assert frame_weights.shape == (batch, frames), (frame_weights.shape, (batch, frames))
        has_weight = frame_weights > 0
        weights = frame_weights.to(dtype).where(has_weight, 0.0)
        # Masking the inputs and not the error: 0 * NaN is NaN, in the backward pass as well.
        used = rearrange(has_weight, "b f -> b 1 f 1 1")
        prediction, target = prediction.where(used, 0.0), target.where(used, 0.0)

    per_frame = _frame_means((prediction - target).square())
    target_frames = _frame_means(target.square())
    if clip_weights is not None:
        scale = rearrange(clip_weights.to(dtype), "b -> b 1")
        per_frame, target_frames = scale * per_frame, scale * target_frames
    total = weights.sum() if weight_sum is None else weight_sum.to(dtype)
    target_norm = _weighted_mean(target_frames, weights, total)
    return _terms(_weighted_mean(per_frame, weights, total), per_frame, target_norm)


def mean_alignment(terms: Sequence[AlignmentTerms]) -> AlignmentTerms:
    """The mean over several predictions of one target."""
    loss = torch.stack([each.loss for each in terms]).mean(dim=0)
    per_frame = torch.stack([each.per_frame for each in terms]).mean(dim=0)
    return _terms(loss, per_frame, terms[0].target_norm)


def _terms(loss: Tensor, per_frame: Tensor, target_norm: Tensor) -> AlignmentTerms:
    ratio = loss.detach() / target_norm.clamp_min(torch.finfo(target_norm.dtype).tiny)
    return AlignmentTerms(loss, per_frame.detach(), target_norm, ratio)


def _frame_means(values: Tensor) -> Tensor:
    """(B, C, F, h, w) -> (B, F)."""
    return reduce(values, "b c f h w -> b f", "mean")


def _weighted_mean(values: Tensor, weights: Tensor, total: Tensor) -> Tensor:
    """Scalar mean of `values` (B, F) with weights that sum to `total`; 0 where all are 0."""
    return (weights * values).sum() / total.clamp_min(torch.finfo(weights.dtype).tiny)
