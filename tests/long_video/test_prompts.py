"""Prompt travel's weights."""

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.long_video.prompts import travel_weights
from lisa_video.long_video.settings import PromptFrom, PromptTravel


def travel(*starts: int, blend: int) -> PromptTravel:
    return PromptTravel(tuple(PromptFrom(start, f"from {start}") for start in starts), blend)


@pytest.mark.parametrize("blend", [0, 1, 4, 7, 60])
def test_weights_are_shares(blend: int) -> None:
    weights = travel_weights(travel(0, 10, 14, 30, blend=blend), 40)
    assert weights.shape == (40, 4)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(40))


def test_borders_are_blended_linearly() -> None:
    weights = travel_weights(travel(0, 10, blend=4), 20)
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    torch.testing.assert_close(weights[6:14, 1], torch.tensor(expected))
    sharp = travel_weights(travel(0, 10, blend=0), 20)
    assert sharp[:10, 0].eq(1).all() and sharp[10:, 1].eq(1).all()


def test_what_makes_no_travel_is_refused() -> None:
    for starts in ((), (3,), (0, 5, 5), (0, 9, 4)):
        with pytest.raises(UserError, match="the first must start at 0"):
            travel(*starts, blend=2)
    with pytest.raises(UserError, match="one starts at frame 20, and the video has 20"):
        travel_weights(travel(0, 20, blend=2), 20)
    with pytest.raises(UserError, match="the one from frame 3 is empty"):
        PromptFrom(3, "")
