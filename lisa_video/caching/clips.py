"""Clips for training whose latents and text states were made before: no video is opened.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lisa_video.caching.keys import EncoderKeys
from lisa_video.dataset import ClipDataset, Condition


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """A window of one video, as the networks read it."""

    condition: Condition
    latents: Tensor
    """(C, T, h, w), as `encode_video` made them."""
    states: Tensor
    """Of its caption: (L, D)."""
    empty_states: Tensor
    """Of the empty caption: (L, D), the same tensor for all clips."""


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Clips as the networks read them; see `ClipBatch`."""

    ids: list[str]
    latents: Tensor
    """(B, C, T, h, w)."""
    states: Tensor
    """(B, L, D)."""
    empty_states: Tensor
    """(L, D)."""
    pose_frames: Tensor
    """float32 (B, F, 3, H, W) in [0, 1]."""
    frame_weights: Tensor
    """float32 (B, F) in [0, 1]."""


class Encodings(Protocol):
    """Where encodings come from."""

    def latents(self, index: int, key: str) -> Tensor:
        """Of a view of clip `index`, by its key: (C, T, h, w).

        Raises UserError where it is not there, or damaged.
        """

    def states(self, index: int, key: str) -> Tensor:
        """Of the caption of that view: (L, D); errors as in `latents`."""

    def empty_states(self, key: str) -> Tensor:
        """Of the empty caption: (L, D); errors as in `latents`."""


class EncodedClips:
    """A `ClipDataset` whose pixels are replaced by encodings; poses are those of the files."""

    def __init__(self, clips: ClipDataset, encodings: Encodings, keys: EncoderKeys) -> None:
        self.clips, self.encodings, self.keys = clips, encodings, keys
        self._empty: Tensor | None = None

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def clip(self, index: int, epoch: int) -> EncodedClip:
        """What `epoch` sees of clip `index`.

        Raises UserError where its pose file cannot be read, or an encoding is missing or damaged.
        """
        view = self.clips.view(index, epoch)
        condition = self.clips.condition(index, view)
        video = self.clips.entries[index].sha256
        if self._empty is None:
            self._empty = self.encodings.empty_states(self.keys.states(""))
        return EncodedClip(
            condition,
            self.encodings.latents(index, self.keys.latents(video, view)),
            self.encodings.states(index, self.keys.states(condition.caption)),
            self._empty,
        )


def collate_encoded(clips: Sequence[EncodedClip]) -> EncodedBatch:
    """Stack clips of equal frames and size."""
    conditions = [clip.condition for clip in clips]
    pose_frames = np.stack([each.pose_frames for each in conditions])
    weights = np.stack([each.poses.frame_weights() for each in conditions])
    return EncodedBatch(
        ids=[each.id for each in conditions],
        latents=torch.stack([clip.latents for clip in clips]),
        states=torch.stack([clip.states for clip in clips]),
        empty_states=clips[0].empty_states,
        pose_frames=torch.from_numpy(pose_frames).float() / 255,
        frame_weights=torch.from_numpy(weights),
    )
