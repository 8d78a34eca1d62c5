"""The window planner over every length, window, overlap and step."""

from itertools import pairwise

import numpy as np
import pytest

from lisa_video.long_video.windows import WindowPlan

SETTINGS = [(16, 4, 0), (16, 0, 0), (8, 7, 0), (5, 2, 1), (4, 1, 1), (21, 4, 1), (1, 0, 0)]


@pytest.mark.parametrize(("length", "overlap", "lead"), SETTINGS)
def test_windows_cover_every_length_with_weights_that_sum_to_one(
    length: int, overlap: int, lead: int
) -> None:
    for frames in range(1, 201):
        plan = WindowPlan(frames, length, overlap, lead)
        for step in range(min(plan.stride, 5)):
            windows = plan.windows(step)
            total = np.zeros(frames)
            for window in windows:
                assert 0 <= window.start < window.stop <= frames  # no wrap-around
                assert window.stop - window.start == min(length, frames)
                assert (window.weights >= 0).all()
                assert not window.start or not window.weights[:lead].any()
                total[window.start : window.stop] += window.weights
            np.testing.assert_allclose(total, 1, rtol=0, atol=1e-12)
            starts = [window.start for window in windows]
            assert starts == sorted(set(starts))
            assert (starts[0], windows[-1].stop) == (0, frames)
            assert all(np.diff(starts) <= plan.stride)


@pytest.mark.parametrize("length", [2, 3, 5, 16])
def test_seams_move_from_step_to_step_and_visit_every_place_alike(length: int) -> None:
    for overlap in range(length - 1):  # a stride of 1 has windows everywhere
        plan = WindowPlan(5 * length, length, overlap)
        starts = [set(plan.starts(step)) - {0, 4 * length} for step in range(2 * plan.stride)]
        assert all(now != then for now, then in pairwise(starts))
        counts = np.zeros(5 * length, int)
        for chosen in starts:
            counts[list(chosen)] += 1
        inside = counts[1 : 4 * length]
        assert (inside == 2).all(), inside  # once in each cycle of the phase


def test_one_window_where_the_video_is_no_longer() -> None:
    for frames in (1, 7, 16):
        (window,) = WindowPlan(frames, 16, 4).windows(3)
        assert (window.start, window.stop) == (0, frames)
        assert (window.weights == 1).all()
        assert WindowPlan(frames, 16, 4).seams(3) == []


def test_neighbours_cross_fade_linearly() -> None:
    first, second = WindowPlan(13, 8, 3).windows(0)
    np.testing.assert_allclose(first.weights[5:], [0.75, 0.5, 0.25])
    np.testing.assert_allclose(second.weights[:3], [0.25, 0.5, 0.75])
    assert WindowPlan(13, 8, 3).seams(0) == [5, 8]
