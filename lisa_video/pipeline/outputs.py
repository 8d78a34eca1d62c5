"""What a pipeline hands out.

Shapes: B batch, F video frames, f of a chunk, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

OutputType = Literal["np", "pt", "pil", "latent"]
OUTPUT_TYPES: tuple[OutputType, ...] = ("np", "pt", "pil", "latent")


@dataclass
class PoseToVideoOutput(BaseOutput):
    """Generated clips."""

    frames: NDArray[np.float32] | Tensor | list[list[Image.Image]]
    """By output type: "np" float32 (B, F, H, W, 3) and "pt" float32 (B, F, 3, H, W), both in
    [0, 1]; "pil" a list of frames for each clip; "latent" normalised latents (B, C, T, h, w)."""


def collected(chunks: Iterable[Tensor], frames: int, output_type: OutputType) -> PoseToVideoOutput:
    """The first `frames` of decoded chunks (B, f, 3, H, W) in [-1, 1], as `output_type` wants them.

    Each chunk is converted as it comes, so that all but "pt" leave the device at once.
    """
    chunks = ((chunk / 2 + 0.5) for chunk in chunks)
    if output_type == "pt":
        return PoseToVideoOutput(torch.cat(list(chunks), dim=1)[:, :frames])
    arrays = (rearrange(chunk, "b f c h w -> b f h w c").cpu().numpy() for chunk in chunks)
    if output_type == "np":
        return PoseToVideoOutput(np.concatenate(list(arrays), axis=1)[:, :frames])
    clips: list[list[Image.Image]] = []
    for array in arrays:
        clips = clips or [[] for _ in array]
        for clip, pictures in zip(clips, as_bytes(array), strict=True):
            clip.extend(Image.fromarray(picture) for picture in pictures)
    return PoseToVideoOutput([clip[:frames] for clip in clips])


def as_bytes(frames: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Frames in [0, 1] as uint8 of the same shape."""
    return np.round(frames * 255).astype(np.uint8)
