"""Draws are keyed by purpose and position."""

from itertools import product
from pathlib import Path

import torch
from scipy.stats import kstest

from lisa_video.training.config import TimestepConfig
from lisa_video.training.draws import Draws, Purpose, clip_shift, draw, stream_seed
from tests.tiny import tiny_backbone
from tests.training.runs import tiny_config

SHAPE = torch.Size((4, 3, 2, 2))


def draws(positions: list[int], **changes: object) -> Draws:
    config = tiny_config(Path("clips"), Path("run"), **changes)
    return draw(config, tiny_backbone(), positions, SHAPE)


def test_a_clip_draws_the_same_in_any_batch_and_under_any_objective() -> None:
    whole = draws([0, 1, 2, 3])
    part = draws([2, 1], objective="plain")
    for name in ("noise", "timesteps", "text_dropped", "pose_dropped"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[[2, 1]]), name
    assert not torch.equal(whole.noise, draws([0, 1, 2, 3], seed=1).noise)


def test_dropout_of_one_kind_moves_nothing_else() -> None:
    without, with_text = draws([0, 1, 2], text_dropout=0.0), draws([0, 1, 2], text_dropout=1.0)
    assert not without.text_dropped.any() and with_text.text_dropped.all()
    assert torch.equal(without.noise, with_text.noise)
    assert torch.equal(without.timesteps, with_text.timesteps)
    assert torch.equal(without.pose_dropped, with_text.pose_dropped)


def test_draws_have_their_distributions() -> None:
    many = draws(list(range(400)), text_dropout=0.25, pose_dropout=0.1, timesteps__shift=1.0)
    assert abs(many.noise.mean()) < 0.02 and abs(many.noise.std() - 1) < 0.02
    assert abs(many.timesteps.float().mean() - 500) < 50
    assert 0.18 < many.text_dropped.float().mean() < 0.32
    assert 0.06 < many.pose_dropped.float().mean() < 0.14


def test_seeds_differ_wherever_an_argument_does() -> None:
    seeds = {stream_seed(*key) for key in product(range(3), Purpose, range(20))}
    assert len(seeds) == 3 * len(Purpose) * 20


def test_logit_normal_timesteps_are_drawn_around_the_middle() -> None:
    settings = {"timesteps__sampling": "logit_normal", "timesteps__shift": 1.0}
    many = list(range(600))
    times = (draws(many, **settings).timesteps.double() + 0.5) / 1000
    distance = kstest(torch.logit(times).numpy(), "norm").statistic
    assert distance < 0.06
    narrow = draws(
        many, **settings, timesteps__logit_mean=1.0, timesteps__logit_std=0.1
    ).timesteps.float()
    assert abs(narrow.mean() - 731) < 5 and narrow.std() < 30


def test_the_shift_follows_the_size_of_clips() -> None:
    backbone = tiny_backbone()
    at = TimestepConfig(shift=2.0, shift_at=(4, 16, 16))
    # The tiny VAE has 4 pixels to a cell along each side: 4 x 4 x 4 cells where the shift is 2.
    assert clip_shift(at, backbone, torch.Size((4, 4, 4, 4))) == 2.0
    assert clip_shift(at, backbone, torch.Size((4, 4, 8, 8))) == 4.0
    assert clip_shift(at, backbone, torch.Size((4, 1, 4, 4))) == 1.0
    assert clip_shift(TimestepConfig(shift=2.0), backbone, torch.Size((4, 1, 9, 9))) == 2.0
    same = draws([0, 1, 2], timesteps__shift=2.0, timesteps__shift_at=(3, 8, 8))
    assert torch.equal(same.timesteps, draws([0, 1, 2], timesteps__shift=2.0).timesteps)
    less = draws([0, 1, 2], timesteps__shift=2.0, timesteps__shift_at=(3, 16, 16)).timesteps
    assert torch.equal(less, draws([0, 1, 2], timesteps__shift=1.0).timesteps)
