"""Both skeletons are where the poses say."""

import numpy as np

from lisa_video.evaluation.overlay import ASKED, FOUND, overlay_strip
from lisa_video.poses.skeletons import OPENPOSE_18


def test_two_skeletons_over_dimmed_pictures() -> None:
    frames = np.full((3, 40, 60, 3), 100, np.uint8)
    asked = np.zeros((3, 1, 18, 3))
    neck, hip = OPENPOSE_18.index("neck"), OPENPOSE_18.index("r_hip")
    asked[:, 0, neck], asked[:, 0, hip] = (15, 5, 1), (15, 35, 1)
    found = asked.copy()
    found[..., 0] += 30 * (found[..., 2] > 0)
    found[1, 0, hip, 2] = 0  # a limb with one end is not drawn
    strip = overlay_strip(frames, asked, found, pictures=3, height=80)
    assert strip.shape == (80, 3 * 120, 3)
    for panel in range(3):
        left = 120 * panel
        np.testing.assert_array_equal(strip[40, left + 30], ASKED)
        assert (strip[40, left + 5] == 70).all()
        if panel == 1:
            assert (strip[40, left + 90] == 70).all()
        else:
            np.testing.assert_array_equal(strip[40, left + 90], FOUND)
    assert overlay_strip(frames, asked, found, pictures=6, height=40).shape == (40, 180, 3)
