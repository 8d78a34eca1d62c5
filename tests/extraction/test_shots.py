"""Cuts are found where scenes meet, and shots split into parts that fit."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from lisa_video.extraction.shots import Span, find_shots, split_shot
from lisa_video.extraction_config import ClipsConfig, ShotsConfig


def scene(seed: int, count: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A picture of soft blots over which the camera pans: uint8 (count, H, W, 3)."""
    blots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(blots, size, interpolation=cv2.INTER_CUBIC)
    return np.stack([np.roll(picture, number * size[0] // 64, axis=1) for number in range(count)])


@pytest.mark.parametrize("size", [(64, 48), (600, 400)])
def test_cuts_lie_between_scenes(size: tuple[int, int]) -> None:
    scenes = [scene(seed, count, size) for seed, count in ((1, 12), (5, 20), (9, 9))]
    shots = find_shots(np.concatenate(scenes), ShotsConfig())
    assert shots == [Span(0, 12), Span(12, 32), Span(32, 41)]


def test_one_scene_is_one_shot() -> None:
    assert find_shots(scene(3, 30), ShotsConfig()) == [Span(0, 30)]
    assert find_shots(scene(3, 1), ShotsConfig()) == [Span(0, 1)]
    still = np.zeros((10, 48, 64, 3), np.uint8)
    assert find_shots(still, ShotsConfig()) == [Span(0, 10)]


def test_parts_are_equal_whole_and_not_too_long() -> None:
    config = ClipsConfig(min_frames=5, max_frames=17)
    for length in range(1, 120):
        parts = split_shot(Span(7, 7 + length), config)
        assert [parts[0].start, parts[-1].stop] == [7, 7 + length]
        assert all(a.stop == b.start for a, b in pairwise(parts))
        lengths = {len(part) for part in parts}
        assert max(lengths) <= 17 and max(lengths) - min(lengths) <= 1
        if length >= 5:
            assert min(lengths) >= 5
