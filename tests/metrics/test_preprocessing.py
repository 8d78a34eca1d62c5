"""Each resizing against an independent one: Pillow, OpenCV, or numbers worked out by hand."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lisa_video.metrics.preprocessing import (
    RESIZES,
    bicubic,
    bilinear,
    bilinear_tf1,
    network_input,
    short_side_crop,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.float32)


def as_tensor(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None]


def as_array(frames: torch.Tensor) -> np.ndarray:
    return frames[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [(20, 30), (100, 61)])
def test_bicubic_is_pillows(size: tuple[int, int]) -> None:
    frame = picture(*size)
    channels = [
        np.asarray(Image.fromarray(channel).resize((48, 48), Image.Resampling.BICUBIC))
        for channel in frame.transpose(2, 0, 1)
    ]
    expected = np.stack(channels, axis=-1).clip(0, 255)
    np.testing.assert_allclose(as_array(bicubic(as_tensor(frame), 48)), expected, atol=2e-3)


def test_bilinear_is_opencvs() -> None:
    frame = picture(20, 30)
    expected = cv2.resize(frame, (48, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(as_array(bilinear(as_tensor(frame), 48)), expected, atol=1e-2)


def test_tensorflow_1_starts_at_the_first_corner() -> None:
    line = torch.tensor([0.0, 30.0, 60.0, 90.0]).reshape(1, 1, 4, 1).expand(1, 3, 4, 4)
    assert bilinear_tf1(line, 8)[0, 0, :, 0].tolist() == [0, 15, 30, 45, 60, 75, 90, 90]
    assert bilinear_tf1(line, 2)[0, 0, :, 0].tolist() == [0, 60]  # nothing is smoothed
    assert bilinear_tf1(line.transpose(2, 3), 8)[0, 0, 0].tolist()[:3] == [0, 15, 30]
    frame = as_tensor(picture(48, 48))
    assert torch.equal(bilinear_tf1(frame, 48), frame)


@pytest.mark.parametrize(("height", "width"), [(20, 50), (50, 20), (20, 20)])
def test_the_middle_is_cut_from_the_resized_picture(height: int, width: int) -> None:
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    frame = torch.stack([x.expand(height, width), y[:, None].expand(height, width), y[:, None] + x])
    found = short_side_crop(frame[None], 40)[0]
    assert found.shape == (3, 40, 40)
    # Shorter side 20 -> 40: twice as many pixels, the middle stays the middle.
    assert found[0, 20, [5, 34]].tolist() == pytest.approx([-7.25, 7.25], abs=0.3)
    assert found[1, [5, 34], 20].tolist() == pytest.approx([-7.25, 7.25], abs=0.3)


@pytest.mark.parametrize("resize", RESIZES)
def test_networks_get_clips_in_range_and_order(resize: str) -> None:
    clips = np.zeros((2, 3, 24, 32, 3), np.uint8)
    clips[1, 2, :, :, 0] = 255
    found = network_input(torch.from_numpy(clips), resize, 16)
    assert found.shape == (2, 3, 3, 16, 16)
    assert found.dtype == torch.float32
    expected = torch.full_like(found, -1)
    expected[1, 0, 2] = 1
    torch.testing.assert_close(found, expected)
