"""How near a generated clip comes to the real one frame by frame.

Shapes: F frames, H W pixels; frames are uint8 RGB, and both clips have the same shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.metrics.extractors import ScriptNetwork, file_sha256

LPIPS_BATCH = 8
"""Frames at a time."""


def psnr(real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB: the mean over frames, so that one good frame does not hide
    bad ones; infinite where frames are equal."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    _check_shapes(real, fake)
    values = peak_signal_noise_ratio(
        _as_unit(fake), _as_unit(real), data_range=1.0, dim=(1, 2, 3), reduction="none"
    )
    return float(values.mean())


def ssim(real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> float:
    """Structural similarity (Wang et al. 2004), mean over frames: Gaussian window of 11 pixels,
    sigma 1.5. Raises UserError for frames below 11 pixels."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check_shapes(real, fake)
    if min(real.shape[1:3]) < 11:
        raise UserError(
            f"SSIM needs frames of 11 pixels, these are {real.shape[2]}x{real.shape[1]}"
        )
    values = structural_similarity_index_measure(_as_unit(fake), _as_unit(real), data_range=1.0)
    assert isinstance(values, Tensor)
    return float(values)


class Lpips:
    """LPIPS (Zhang et al. 2018) by a TorchScript network of the user's: two pictures
    (B, 3, H, W) in [-1, 1] -> B distances of any shape.

    Raises UserError where the file is not one.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path}: no such LPIPS network")
        self.sha256 = file_sha256(path)
        self._path, self._network = path, ScriptNetwork(path).eval()

    @torch.inference_mode()
    def __call__(self, real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> float:
        """Mean distance over frames."""
        _check_shapes(real, fake)
        values = []
        for start in range(0, len(real), LPIPS_BATCH):
            pair = [_as_unit(clip[start : start + LPIPS_BATCH]) * 2 - 1 for clip in (fake, real)]
            try:
                values.append(self._network(*pair).reshape(len(pair[0])))
            except (RuntimeError, AttributeError) as error:
                reason = str(error).strip().splitlines()[-1]
                raise UserError(f"{self._path}: gives no distance of pictures: {reason}") from None
        return float(torch.cat(values).mean())


def _as_unit(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 (F, H, W, 3) -> float32 (F, 3, H, W) in [0, 1]."""
    return rearrange(torch.from_numpy(frames).float() / 255, "f h w c -> f c h w")


def _check_shapes(real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> None:
    if real.shape != fake.shape:
        sizes = [f"{len(clip)} frames of {clip.shape[2]}x{clip.shape[1]}" for clip in (real, fake)]
        raise UserError(f"the real clip has {sizes[0]}, the generated one {sizes[1]}")
