"""Flicker and warp error of clips whose motion is known."""

import cv2
import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.metrics.motion import consistent, flicker, flow_warp_error


def texture(seed: int = 0, side: int = 160) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    return np.clip((smooth - 128) * 4 + 128, 0, 255).astype(np.uint8)


def panned(step: int, frames: int = 4) -> np.ndarray:
    """A window of 96 pixels that moves over a texture."""
    picture = texture()
    return np.stack([picture[20:116, 10 + step * t : 106 + step * t] for t in range(frames)])


def test_flicker_is_the_mean_change() -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[1] = 51
    assert flicker(frames) == pytest.approx(0.2)
    assert flicker(frames[[0, 0, 0]]) == 0


def test_smooth_motion_warps_onto_itself_and_noise_does_not() -> None:
    moving = panned(step=3)
    assert flicker(moving) > 0.05
    steady = flow_warp_error(moving)
    assert steady < 1e-3
    # The same motion with the brightness of every other frame changed.
    dimmed = moving.copy()
    dimmed[1::2] = (moving[1::2] * 0.8).astype(np.uint8)
    assert flow_warp_error(dimmed) > 5 * steady
    assert flow_warp_error(moving[[0, 0, 0]]) == 0


def test_hidden_places_are_where_flows_disagree() -> None:
    forward, backward = np.zeros((20, 30, 2), np.float32), np.zeros((20, 30, 2), np.float32)
    forward[..., 0], backward[..., 0] = 4, -4
    backward[:, 14:18, 0] = 9
    seen = consistent(forward, backward)
    assert seen[:, :9].all()
    assert not seen[:, 10:14].any()  # they lead to columns 14 to 17
    assert seen[:, 15:26].all()
    assert not seen[:, 26:].any()  # they lead out of the frame


def test_clips_without_motion_are_refused() -> None:
    for measure in (flicker, flow_warp_error):
        with pytest.raises(UserError, match="at least 2 frames, there are 1"):
            measure(panned(1, frames=1))
    with pytest.raises(UserError, match="at least 16 pixels, these are 96x12"):
        flow_warp_error(panned(1)[:, :12])
