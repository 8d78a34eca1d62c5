"""Flicker at seams, on videos whose changes are known."""

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.long_video.seams import SeamFlicker, frame_changes, seam_flicker


def test_changes_at_seams_are_told_from_the_others() -> None:
    levels = np.array([0, 2, 4, 14, 16, 18, 28, 30], np.uint8)
    frames = (np.full((4, 6, 3), level, np.uint8) for level in levels)
    changes = frame_changes(frames)
    np.testing.assert_allclose(changes * 255, np.diff(levels))
    found = seam_flicker(changes, [3, 6], range(1, 8))
    assert found.at_seams * 255 == pytest.approx(10)
    assert found.elsewhere * 255 == pytest.approx(2)
    assert found.ratio == pytest.approx(5)
    assert SeamFlicker(0.0, 0.0).ratio == 1


def test_seams_are_compared_with_places_of_their_kind() -> None:
    """Every fourth change is large, at seams and elsewhere."""
    changes = np.array([8, 1, 1, 1, 8, 1, 1, 1, 8, 1, 1, 1]) / 255
    assert seam_flicker(changes, [5], range(1, 13)).ratio > 2
    assert seam_flicker(changes, [5], range(1, 13, 4)).ratio == pytest.approx(1)


def test_without_seams_or_anything_else_there_is_nothing_to_compare() -> None:
    for seams in ([], [0, 9], [1, 2, 3]):
        with pytest.raises(UserError, match="there must be some of both"):
            seam_flicker(np.ones(3), seams, range(1, 4))
