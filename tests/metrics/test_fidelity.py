"""PSNR and SSIM against their definitions, LPIPS through a small network's file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lisa_video.errors import UserError
from lisa_video.metrics.fidelity import Lpips, psnr, ssim


def clip(seed: int, frames: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 24, 32, 3)).astype(np.uint8)


def test_psnr_is_a_mean_over_frames() -> None:
    real = np.full((2, 16, 16, 3), 100, np.uint8)
    fake = real.copy()
    fake[0] += 10
    fake[1] += 50
    expected = [20 * np.log10(255 / error) for error in (10, 50)]
    assert psnr(real, fake) == pytest.approx(np.mean(expected), rel=1e-5)
    assert psnr(real, real) == np.inf


def test_ssim_of_noise_and_of_the_same() -> None:
    assert ssim(clip(0), clip(0)) == pytest.approx(1)
    assert abs(ssim(clip(0), clip(1))) < 0.1
    flat = np.full((1, 16, 16, 3), 100, np.uint8)
    # Without structure only the luminance term is left: (2 a b + c) / (a^2 + b^2 + c).
    a, b, c = 100 / 255, 150 / 255, 0.01**2
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert ssim(flat, flat + 50) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(UserError, match="11 pixels, these are 16x8"):
        ssim(flat[:, :8], flat[:, :8])


def test_clips_of_other_shapes_are_refused() -> None:
    for measure in (psnr, ssim):
        with pytest.raises(UserError, match=r"real clip has 3 frames of 32x24, .* 2 frames"):
            measure(clip(0), clip(0, frames=2))


class PixelDistance(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().mean([1, 2, 3], keepdim=True)


def test_lpips_takes_a_network_by_path(tmp_path: Path) -> None:
    path = tmp_path / "lpips.pt"
    torch.jit.script(PixelDistance()).save(str(path))
    real, fake = clip(0, frames=11), clip(1, frames=11)
    measure = Lpips(path)
    expected = np.abs(real.astype(float) - fake).mean() / 127.5
    assert measure(real, fake) == pytest.approx(expected, rel=1e-5)
    assert len(measure.sha256) == 64
    with pytest.raises(UserError, match="no such LPIPS network"):
        Lpips(tmp_path / "absent.pt")
    torch.jit.script(nn.Identity()).save(str(path))
    with pytest.raises(UserError, match=r"lpips\.pt: gives no distance"):
        Lpips(path)(real, fake)
