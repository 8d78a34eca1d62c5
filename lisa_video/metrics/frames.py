"""Features of single frames, for FID by a network of the user's.

Shapes: B batch, T frames, H W pixels, D features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.metrics.extractors import ScriptNetwork, file_sha256, plain_name


class FrameExtractor:
    """A TorchScript network that takes pictures, uint8 (B, 3, H, W), and gives features (B, D), as
    the Inception that NVIDIA publishes for FID does; it resizes them itself.

    Raises UserError where the file is not one.
    """

    is_i3d = False
    preprocessing = "frames as they are, uint8"
    min_frames = 1

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        if not path.is_file():
            raise UserError(f"{path}: no such FID network")
        self.name, self.sha256 = plain_name(path.stem), file_sha256(path)
        self._path, self._device = path, torch.device(device)
        self._network = ScriptNetwork(path).eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, T, H, W, 3) -> float32 (B T, D): one row per frame."""
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).to(self._device)
        try:
            features = self._network(rearrange(pixels, "b t h w c -> (b t) c h w"))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{self._path}: cannot take uint8 (B, 3, H, W): {reason}") from None
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise UserError(f"{self._path}: gives no features (B, D)")
        return features.float().cpu().numpy()
