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
from numpy.typing import NDArray
from torch import Tensor

from lisa_video.buckets import Bucket
from lisa_video.caching.keys import EncoderKeys
from lisa_video.caching.store import CacheStore
from lisa_video.dataset import Clip, ClipBatch, ClipDataset, Condition, collate


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

    def read(self, clip: int, key: str) -> Tensor:
        """What belongs to clip `clip` under this key: latents (C, T, h, w), or text states (L, D)
        of its caption or of the empty one.

        Raises UserError where it is not there, or damaged.
        """


class CacheReader:
    """Encodings from the folder of a cache."""

    def __init__(self, store: CacheStore) -> None:
        self.store = store

    def read(self, clip: int, key: str) -> Tensor:
        return self.store.read(key)


class EncodedClips:
    """A `ClipDataset` whose pixels are replaced by encodings; poses are those of the files."""

    def __init__(self, clips: ClipDataset, encodings: Encodings, keys: EncoderKeys) -> None:
        self.clips, self.encodings, self.keys = clips, encodings, keys
        self._empty: Tensor | None = None

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Shapes of windows."""
        return self.clips.buckets

    @property
    def bucket_of(self) -> NDArray[np.int16]:
        """Index of each clip's bucket, (N,)."""
        return self.clips.bucket_of

    def clip(self, index: int, epoch: int) -> EncodedClip:
        """What `epoch` sees of clip `index`.

        Raises UserError where its pose file cannot be read, or an encoding is missing or damaged.
        """
        view = self.clips.view(index, epoch)
        condition = self.clips.condition(index, view)
        video = self.clips.entries[index].sha256
        if self._empty is None:
            self._empty = self.encodings.read(index, self.keys.states(""))
        return EncodedClip(
            condition,
            self.encodings.read(index, self.keys.latents(video, view)),
            self.encodings.read(index, self.keys.states(condition.caption)),
            self._empty,
        )


TrainingClips = ClipDataset | EncodedClips


def stack_clips(clips: Sequence[Clip | EncodedClip]) -> ClipBatch | EncodedBatch:
    """Stack clips of one source, of equal frames and size."""
    encoded = [clip for clip in clips if isinstance(clip, EncodedClip)]
    if encoded:
        assert len(encoded) == len(clips)
        return collate_encoded(encoded)
    return collate([clip for clip in clips if isinstance(clip, Clip)])


def collate_encoded(clips: Sequence[EncodedClip]) -> EncodedBatch:
    """Stack clips of equal frames and size."""
    conditions = [clip.condition for clip in clips]
    pose_frames = np.stack([each.pose_frames for each in conditions])
    weights = np.stack([each.frame_weights for each in conditions])
    return EncodedBatch(
        ids=[each.id for each in conditions],
        latents=torch.stack([clip.latents for clip in clips]),
        states=torch.stack([clip.states for clip in clips]),
        empty_states=clips[0].empty_states,
        pose_frames=torch.from_numpy(pose_frames).float() / 255,
        frame_weights=torch.from_numpy(weights),
    )
