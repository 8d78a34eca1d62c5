"""The alignment loss: plain mean squared error where all frames count, NaN-safe elsewhere."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lisa_video.alignment import alignment_loss, likelihood_target, mean_alignment


def random_latents(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, 5, 6, generator=generator)


def test_likelihood_target_carries_no_gradient() -> None:
    prior = random_latents(0).requires_grad_()
    target = likelihood_target(random_latents(1), prior)
    assert not target.requires_grad
    assert torch.equal(target, random_latents(1) - random_latents(0))


def test_without_weights_it_is_the_plain_mean_squared_error() -> None:
    prediction, target = random_latents(0).requires_grad_(), random_latents(1)
    terms = alignment_loss(prediction, target)
    plain = functional.mse_loss(prediction, target)
    torch.testing.assert_close(terms.loss, plain, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(terms.target_norm, target.square().mean(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(terms.ratio, plain.detach() / target.square().mean())

    (gradient,) = torch.autograd.grad(terms.loss, prediction)
    (plain_gradient,) = torch.autograd.grad(plain, prediction)
    torch.testing.assert_close(gradient, plain_gradient)


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_equal_weights_change_nothing(weight: float) -> None:
    prediction, target = random_latents(0), random_latents(1)
    weighted = alignment_loss(prediction, target, torch.full((2, 3), weight))
    torch.testing.assert_close(weighted.loss, alignment_loss(prediction, target).loss)


def test_frames_count_by_their_weight() -> None:
    prediction, target = random_latents(0), random_latents(1)
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.25, 0.0, 1.0]])
    terms = alignment_loss(prediction, target, weights)

    error = total = norm = 0.0
    for clip in range(2):
        for frame in range(3):
            weight = weights[clip, frame].item()
            difference = (prediction - target)[clip, :, frame]
            error += weight * difference.square().mean().item()
            norm += weight * target[clip, :, frame].square().mean().item()
            total += weight
            if weight:
                assert terms.per_frame[clip, frame] == pytest.approx(difference.square().mean())
    assert terms.loss.item() == pytest.approx(error / total)
    assert terms.target_norm.item() == pytest.approx(norm / total)
    assert terms.ratio.item() == pytest.approx(error / norm)


@pytest.mark.parametrize("dead_weight", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf")])
def test_nan_in_a_frame_without_weight_stays_there(garbage: float, dead_weight: float) -> None:
    weights = torch.tensor([[1.0, dead_weight, 1.0], [0.5, 1.0, 1.0]])
    prediction, target = random_latents(0), random_latents(1)
    prediction[0, :, 1] = garbage
    target[0, :, 1] = garbage
    prediction.requires_grad_()
    terms = alignment_loss(prediction, target, weights)
    terms.loss.backward()

    clean = alignment_loss(random_latents(0), random_latents(1), weights)
    assert terms.loss == clean.loss and terms.target_norm == clean.target_norm
    assert terms.ratio == clean.ratio and terms.per_frame[0, 1] == 0
    assert prediction.grad is not None and prediction.grad.isfinite().all()
    assert (prediction.grad[0, :, 1] == 0).all() and (prediction.grad[0, :, 0] != 0).all()


def test_nan_in_a_frame_that_counts_is_not_hidden() -> None:
    prediction = random_latents(0)
    prediction[0, 0, 1, 0, 0] = float("nan")
    assert alignment_loss(prediction, random_latents(1), torch.ones(2, 3)).loss.isnan()


def test_no_weight_at_all_gives_zero_loss_and_zero_gradient() -> None:
    prediction = random_latents(0).requires_grad_()
    terms = alignment_loss(prediction, random_latents(1), torch.zeros(2, 3))
    terms.loss.backward()
    assert terms.loss == 0 and terms.target_norm == 0 and terms.ratio == 0
    assert prediction.grad is not None and (prediction.grad == 0).all()


def test_half_precision_is_reduced_in_float32() -> None:
    prediction = (300 * random_latents(0)).half()
    target = torch.zeros_like(prediction)
    terms = alignment_loss(prediction, target)
    assert terms.loss.dtype == torch.float32
    torch.testing.assert_close(terms.loss, prediction.float().square().mean())


def test_only_the_loss_carries_a_gradient() -> None:
    prediction, target = random_latents(0).requires_grad_(), random_latents(1).requires_grad_()
    terms = alignment_loss(prediction, target)
    assert terms.loss.requires_grad
    assert not any(t.requires_grad for t in (terms.per_frame, terms.target_norm, terms.ratio))
    assert torch.autograd.grad(terms.loss, target, allow_unused=True) == (None,)


def test_clip_weights_multiply_errors_and_target_norm() -> None:
    prediction, target = random_latents(0), random_latents(1)
    frames = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 1.0]])
    clips = torch.tensor([0.5, 3.0])
    terms = alignment_loss(prediction, target, frames, clips)
    weights = frames * clips[:, None]
    errors = (prediction - target).square().mean(dim=(1, 3, 4))
    torch.testing.assert_close(terms.loss, (weights * errors).sum() / frames.sum())
    norms = target.square().mean(dim=(1, 3, 4))
    torch.testing.assert_close(terms.target_norm, (weights * norms).sum() / frames.sum())
    nothing = alignment_loss(torch.zeros_like(target), target, frames, clips)
    assert nothing.ratio.item() == pytest.approx(1)
    same = alignment_loss(prediction, target, frames, torch.ones(2))
    torch.testing.assert_close(same.loss, alignment_loss(prediction, target, frames).loss)


def test_mean_over_predictions_of_one_target() -> None:
    target = random_latents(2)
    terms = [alignment_loss(random_latents(seed), target) for seed in (0, 1)]
    both = mean_alignment(terms)
    torch.testing.assert_close(both.loss, (terms[0].loss + terms[1].loss) / 2)
    torch.testing.assert_close(both.per_frame.mean(), both.loss)
    torch.testing.assert_close(both.ratio, both.loss / terms[0].target_norm)
    alone = mean_alignment(terms[:1])
    for name in ("loss", "per_frame", "target_norm", "ratio"):
        assert torch.equal(getattr(alone, name), getattr(terms[0], name)), name
