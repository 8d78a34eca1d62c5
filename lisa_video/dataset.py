"""Clips with poses for training and evaluation, cut from a dataset in the format of data/README.md.

Shape legend: B batch, F frames, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lisa_video.errors import UserError
from lisa_video.manifest import (
    ManifestEntry,
    check_lengths,
    check_sizes,
    load_manifest,
    select_split,
)
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.video import probe_video, read_video


@dataclass(frozen=True, eq=False)
class Clip:
    """A window of one video, at the size asked for."""

    id: str
    pixels: NDArray[np.uint8]
    """(F, H, W, 3) RGB."""
    poses: PoseSequence
    """Of these frames, in their pixels; its fps is that of the window."""
    pose_frames: NDArray[np.uint8]
    """(F, 3, H, W): the poses drawn, black where nobody is."""
    caption: str
    start: int
    """Frame of the video that the window begins with."""


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Clips as models read them."""

    ids: list[str]
    pixels: Tensor
    """float32 (B, F, 3, H, W) in [-1, 1]."""
    pose_frames: Tensor
    """float32 (B, F, 3, H, W) in [0, 1]."""
    frame_weights: Tensor
    """float32 (B, F) in [0, 1], see `PoseSequence.frame_weights`."""
    captions: list[str]


@dataclass(frozen=True, eq=False)
class _Frames:
    """Frames at the size asked for: pixels, poses and poses drawn as in `Clip`."""

    pixels: NDArray[np.uint8]
    poses: PoseSequence
    drawn: NDArray[np.uint8]

    def take(self, indices: Sequence[int]) -> _Frames:
        """A copy of some frames: who changes it changes nothing here."""
        chosen = list(indices)
        return _Frames(self.pixels[chosen], self.poses.frames(chosen), self.drawn[chosen])


class ClipDataset(Dataset[Clip]):
    """Windows of the clips of one split; item i is a window of clip i.

    Where a window starts depends on (seed, epoch, clip id) alone. `set_epoch` does not reach
    DataLoader workers that live on between epochs: give them epochs through `clip`.

    Args:
        root: folder of the dataset.
        split: split of the manifest.
        frames: frames of a window.
        stride: video frames from one frame of the window to the next.
        size: width and height in pixels, reached by `fit_clip`.
        seed: of the windows.
        cache_in_memory: keep every clip decoded, resized and with its poses drawn, for sets that fit.

    Raises:
        UserError: as `load_manifest`; the split is unknown; a clip is shorter than a window.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        frames: int = 8,
        stride: int = 1,
        size: tuple[int, int] = (64, 64),
        seed: int = 0,
        cache_in_memory: bool = False,
    ) -> None:
        assert frames >= 1 and stride >= 1 and min(size) >= 1 and seed >= 0
        self.root, self.size, self.seed = root, size, seed
        self.frames, self.stride = frames, stride
        self.entries = select_split(load_manifest(root), split, root)
        self._span = (frames - 1) * stride + 1
        short = [entry for entry in self.entries if entry.frames < self._span]
        if short:
            raise UserError(
                f"{root}: clip '{short[0].id}' has {short[0].frames} frames, a window of {frames} "
                f"frames with stride {stride} needs {self._span}; {len(short)} of "
                f"{len(self.entries)} clips of split '{split}' are too short"
            )
        self._epoch = 0
        self._checked: set[str] = set()
        self._cache: dict[str, _Frames] | None = {} if cache_in_memory else None

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.entries)

    def __getitem__(self, index: int) -> Clip:
        """The window of clip `index` in the epoch of `set_epoch`; errors as in `clip`."""
        return self.clip(index, self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the windows that `[]` gives; 0 at first."""
        self._epoch = epoch

    def clip(self, index: int, epoch: int) -> Clip:
        """The window of clip `index` in `epoch`.

        Raises:
            UserError: video and poses do not fit each other or the manifest, or cannot be read;
                the message names the clip or the file.
        """
        entry = self.entries[index]
        start = window_start(self.seed, epoch, entry.id, entry.frames - self._span + 1)
        wanted = range(start, start + self._span, self.stride)
        if self._cache is None:
            frames = self._read(entry, wanted)
        else:
            if entry.id not in self._cache:
                self._cache[entry.id] = self._read(entry, range(entry.frames))
            frames = self._cache[entry.id].take(wanted)
        return Clip(
            id=entry.id,
            pixels=frames.pixels,
            poses=replace(frames.poses, fps=entry.fps / self.stride),
            pose_frames=frames.drawn,
            caption=entry.caption,
            start=start,
        )

    def check(self) -> None:
        """Open every clip of the split, decoding only its first frame; errors as in `clip`."""
        for entry in self.entries:
            self._poses(entry)

    def _read(self, entry: ManifestEntry, wanted: Sequence[int]) -> _Frames:
        poses = self._poses(entry).frames(wanted)
        pixels = read_video(self.root / entry.video, wanted).frames
        pixels, poses = fit_clip(pixels, poses, self.size)
        drawn = draw_pose_frames(poses.keypoints, self.size, self.size)
        return _Frames(pixels, poses, (drawn * 255).round().astype(np.uint8))

    def _poses(self, entry: ManifestEntry) -> PoseSequence:
        """Poses of the whole clip; the first time they are compared with video and manifest."""
        poses = PoseSequence.load(self.root / entry.poses, require_people=True)
        if entry.id not in self._checked:
            _check_clip(entry, self.root / entry.video, poses)
            self._checked.add(entry.id)
        return poses


def _check_clip(entry: ManifestEntry, path: Path, poses: PoseSequence) -> None:
    info = probe_video(path)
    check_lengths(str(path), info.frames, len(poses))
    check_sizes(str(path), (info.width, info.height), (poses.width, poses.height))
    for name in ("frames", "width", "height"):
        found, stated = getattr(info, name), getattr(entry, name)
        if found != stated:
            raise UserError(
                f"{path}: {name} is {found}, the manifest says {stated} for clip '{entry.id}'"
            )


def window_start(seed: int, epoch: int, id: str, starts: int) -> int:
    """First frame of a window, one of `starts` equally likely places."""
    digest = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")
    return int(np.random.default_rng([seed, epoch, digest]).integers(starts))


def fit_clip(
    frames: NDArray[np.uint8], poses: PoseSequence, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], PoseSequence]:
    """Scale frames until they just cover `size`, and cut out the centre; the aspect is kept.

    Args:
        frames: uint8 (F, H, W, 3).
        poses: of these frames, in their pixels.
        size: width and height in pixels.

    Returns:
        Frames uint8 (F, size[1], size[0], 3), and the poses in their pixels. Joints beyond the cut
        keep their places outside of the frame, so that limbs which lead there are drawn rightly.
    """
    height, width = frames.shape[1:3]
    assert (width, height) == (poses.width, poses.height)
    scale = max(size[0] / width, size[1] / height)
    covering = (max(size[0], round(width * scale)), max(size[1], round(height * scale)))
    left, top = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    if covering != (width, height):
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        frames = np.stack([cv2.resize(frame, covering, interpolation=how) for frame in frames])
    cut = np.ascontiguousarray(frames[:, top : top + size[1], left : left + size[0]])
    moved = poses.resized(*covering).keypoints - np.array([left, top, 0], dtype=np.float32)
    moved[poses.keypoints[..., 2] == 0] = 0
    return cut, replace(poses, keypoints=moved, width=size[0], height=size[1])


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of equal frames and size."""
    pixels = torch.from_numpy(np.stack([clip.pixels for clip in clips]))
    pose_frames = torch.from_numpy(np.stack([clip.pose_frames for clip in clips]))
    return ClipBatch(
        ids=[clip.id for clip in clips],
        pixels=rearrange(pixels, "b f h w c -> b f c h w").float() / 127.5 - 1,
        pose_frames=pose_frames.float() / 255,
        frame_weights=torch.from_numpy(np.stack([clip.poses.frame_weights() for clip in clips])),
        captions=[clip.caption for clip in clips],
    )
