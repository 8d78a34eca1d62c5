"""FreeNoise: what is repeated, and what stays."""

import pytest
import torch

from lisa_video.long_video.noise import rescheduled


@pytest.mark.parametrize(("frames", "window", "stride"), [(40, 16, 12), (17, 16, 4), (30, 8, 8)])
def test_later_runs_are_earlier_ones_shuffled(frames: int, window: int, stride: int) -> None:
    noise = torch.randn(2, 4, frames, 3, 5, generator=torch.Generator().manual_seed(0))
    before = noise.clone()
    made = rescheduled(noise, window, stride, torch.Generator().manual_seed(1))
    assert torch.equal(noise, before)
    assert torch.equal(made[:, :, :window], noise[:, :, :window])
    for start in range(window, frames, stride):
        later = range(start, min(start + stride, frames))
        earlier = range(start - window, start - window + stride)
        sources = [
            [index for index in earlier if torch.equal(made[:, :, frame], made[:, :, index])]
            for frame in later
        ]
        assert all(len(found) == 1 for found in sources)
        assert len({found[0] for found in sources}) == len(later)


def test_the_order_follows_the_generator_and_short_videos_are_left_alone() -> None:
    noise = torch.randn(1, 1, 64, 1, 1, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        rescheduled(noise, 16, 12, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(rescheduled(noise[:, :, :16], 16, 12, None), noise[:, :, :16])
