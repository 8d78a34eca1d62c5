from pathlib import Path

import numpy as np
import pytest
import torch

from lisa_video.detectors.figure_net import (
    FigureDetector,
    decode_keypoints,
    keypoint_loss,
)
from lisa_video.errors import UserError
from tests.tiny import tiny_detector


def ideal_logits(keypoints: torch.Tensor, side: int = 32) -> torch.Tensor:
    centres = (torch.arange(side) + 0.5) * 2
    x = -((centres - keypoints[..., :1]) ** 2) / (2 * 1.6**2)
    y = -((centres - keypoints[..., 1:2]) ** 2) / (2 * 1.6**2)
    return y[..., :, None] + x[..., None, :]


def test_decoding_finds_peaks_between_cells() -> None:
    keypoints = torch.rand(3, 18, 3, generator=torch.Generator().manual_seed(0)) * 40 + 12
    found = decode_keypoints(ideal_logits(keypoints), torch.full((3, 18), 20.0))
    torch.testing.assert_close(found[..., :2], keypoints[..., :2], atol=0.1, rtol=0)
    assert (found[..., 2] > 0.95).all()


def test_an_absent_or_blurred_keypoint_has_low_confidence() -> None:
    logits = torch.zeros(1, 18, 32, 32)
    assert (decode_keypoints(logits, torch.full((1, 18), 20.0))[..., 2] < 0.05).all()
    sharp = ideal_logits(torch.full((1, 18, 3), 30.0))
    assert (decode_keypoints(sharp, torch.full((1, 18), -20.0))[..., 2] < 1e-6).all()


def test_absent_keypoints_do_not_enter_the_heatmap_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 18, 32, 32, generator=generator)
    presence = torch.zeros(2, 18)
    keypoints = torch.rand(2, 18, 3, generator=generator) * 60
    keypoints[:, 5, 2] = 0
    moved = keypoints.clone()
    moved[:, 5, :2] += 17
    assert keypoint_loss(logits, presence, keypoints) == keypoint_loss(logits, presence, moved)
    moved[:, 6, :2] += 17
    assert keypoint_loss(logits, presence, keypoints) != keypoint_loss(logits, presence, moved)


def test_detector_maps_keypoints_back_to_frames_of_any_size(tmp_path: Path) -> None:
    detector = FigureDetector(tiny_detector(tmp_path))
    small = np.random.default_rng(0).integers(0, 255, (2, 64, 32, 3), dtype=np.uint8)
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    found, enlarged = detector.detect(small), detector.detect(large)
    assert found.shape == (2, 1, 18, 3)
    # Area reduction undoes the repetition exactly: the same picture, three times the coordinates.
    np.testing.assert_allclose(enlarged[..., :2], 3 * found[..., :2], rtol=1e-4)


def test_missing_network_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json is missing.*train_detector"):
        FigureDetector(tmp_path)
