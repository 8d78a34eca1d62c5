"""Gaps are filled with less confidence; the filter takes out jitter and leaves motion."""

import numpy as np
import pytest

from lisa_video.extraction.smoothing import fill_gaps, refine_motion, smooth
from lisa_video.extraction_config import SmoothingConfig

FPS = 25.0
FRAMES = 60


def walk(speed: float = 0.0) -> np.ndarray:
    """(F, 18, 3): a body 100 pixels high that moves `speed` pixels per frame, confidence 1."""
    body = np.random.default_rng(0).uniform(0, 100, (18, 2))
    body[:2, 1] = 0, 100
    places = body + np.arange(FRAMES)[:, None, None] * [speed, 0]
    return np.concatenate([places, np.ones((FRAMES, 18, 1))], axis=-1).astype(np.float32)


def test_rest_and_steady_motion_pass_unchanged() -> None:
    config = SmoothingConfig()
    np.testing.assert_allclose(smooth(walk(), FPS, config), walk(), atol=1e-4)
    moved = smooth(walk(4.0), FPS, config)
    np.testing.assert_allclose(moved[20:40], walk(4.0)[20:40], atol=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_jitter_shrinks(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 1, (FRAMES, 18, 2))
    noisy = walk(1.0)
    noisy[..., :2] += noise
    left = smooth(noisy, FPS, SmoothingConfig())[..., :2] - walk(1.0)[..., :2]
    assert left[5:-5].std() < 0.7 * noise[5:-5].std()


def test_a_doubtful_place_moves_the_result_less() -> None:
    def error(confidence: float) -> float:
        track = walk()
        track[30, 5] = track[30, 5] + [20, 0, 0]
        track[30, 5, 2] = confidence
        return float(np.abs(smooth(track, FPS, SmoothingConfig())[:, 5, 0] - walk()[:, 5, 0]).max())

    errors = [error(confidence) for confidence in (1.0, 0.5, 0.1, 0.02)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_time_has_no_direction() -> None:
    track = walk(2.0)
    track[..., :2] += np.random.default_rng(1).normal(0, 2, (FRAMES, 18, 2)).astype(np.float32)
    there = smooth(track, FPS, SmoothingConfig())
    back = smooth(track[::-1], FPS, SmoothingConfig())[::-1]
    np.testing.assert_allclose(there, back, atol=1e-3)


def test_short_gaps_lie_on_a_line_at_half_the_confidence() -> None:
    track = walk(2.0)
    track[..., 2] = 0.8
    track[10:13, 4] = 0
    track[30:36, 4] = 0
    track[:3, 7] = 0
    filled = fill_gaps(track, max_gap=3)
    np.testing.assert_allclose(filled[10:13, 4, :2], walk(2.0)[10:13, 4, :2], atol=1e-4)
    np.testing.assert_allclose(filled[10:13, 4, 2], 0.4)
    assert not filled[30:36, 4].any() and not filled[:3, 7].any()
    untouched = np.ones(track.shape[:2], bool)
    untouched[10:13, 4] = False
    np.testing.assert_array_equal(filled[untouched], track[untouched])


def test_missing_joints_stay_missing_and_confidences_stay() -> None:
    rng = np.random.default_rng(2)
    track = walk(1.0)
    track[..., 2] = rng.uniform(0.1, 1, track.shape[:2])
    track[rng.random(track.shape[:2]) < 0.3] = 0
    result = refine_motion(track[:, None], FPS, SmoothingConfig(max_gap=0))
    assert result.shape == (FRAMES, 1, 18, 3) and result.dtype == np.float32
    np.testing.assert_array_equal(result[:, 0, :, 2], track[..., 2])
    np.testing.assert_array_equal(result[:, 0][track[..., 2] == 0], 0)
    same = refine_motion(track[:, None], FPS, SmoothingConfig(min_cutoff=0, max_gap=0))
    np.testing.assert_array_equal(same[:, 0], track)
    nobody = np.zeros((5, 1, 18, 3), np.float32)
    np.testing.assert_array_equal(refine_motion(nobody, FPS, SmoothingConfig()), nobody)
