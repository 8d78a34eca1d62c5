"""Clips with poses for training and evaluation, cut from a dataset in the format of data/README.md.

Shape legend: B batch, F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.buckets import NO_BUCKET, Bucket, best_buckets
from lisa_video.clip_reader import ClipReader
from lisa_video.condition_config import ConditionKind
from lisa_video.conditions import draw_edges, frame_weights, reads_video
from lisa_video.errors import UserError
from lisa_video.manifest import Manifest, ManifestEntry
from lisa_video.manifest_index import CHECKED_CLIPS
from lisa_video.mirroring import can_mirror, mirrored_caption
from lisa_video.packing.clips import ManifestEntries, PackedClips
from lisa_video.poses import PoseSequence
from lisa_video.views import (
    View,
    ViewKey,
    draw_box,
    draw_flip,
    draw_pose_seed,
    draw_start,
    draw_stride,
    withheld,
)
from lisa_video.windows import WindowRule, window_span


@dataclass(frozen=True, eq=False)
class Clip:
    """A window of one video, at the size asked for."""

    id: str
    pixels: NDArray[np.uint8]
    """(F, H, W, 3) RGB."""
    poses: PoseSequence
    """Of these frames, in their pixels; its fps is that of the window."""
    pose_frames: NDArray[np.uint8]
    """(F, 3, H, W): the condition drawn; of poses black where nobody is."""
    frame_weights: NDArray[np.float32]
    """(F,) in [0, 1]: how far to trust it, see `conditions.frame_weights`."""
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
    """float32 (B, F) in [0, 1], see `conditions.frame_weights`."""
    captions: list[str]


@dataclass(frozen=True, eq=False)
class Condition:
    """What steers a window, without its pixels; all as in `Clip`."""

    id: str
    poses: PoseSequence
    pose_frames: NDArray[np.uint8]
    frame_weights: NDArray[np.float32]
    caption: str
    start: int


class ClipDataset(Dataset[Clip]):
    """Windows of the clips of one split; item i is a window of clip i.

    What is seen of a clip is its `View`, and depends on (seed, epoch, clip id), on what manifest
    and poses say of it, and on the settings here. `set_epoch` does not reach DataLoader workers
    that live on between epochs: give them epochs through `clip`.

    Args:
        root: folder of the dataset.
        split: split of the manifest.
        frames: frames of a window.
        stride: video frames from one frame of the window to the next.
        size: width and height in pixels, reached by `fit_frames`.
        seed: of the views.
        cache_in_memory: keep every clip decoded, for sets that fit: resized and with its poses
            drawn, or as it is where every view cuts out another part of it.
        max_stride: draw the stride of each window from `stride` to this, as far as the clip is long
            enough.
        fps: take frames by time, as if every clip had this many a second, and count strides in
            these; each is the nearest there is. A clip of constant frame rate is assumed.
        buckets: shapes of windows in place of `frames` and `size`; each clip has that which
            `best_buckets` gives it.
        views: 0: each epoch has views of its own; n: each clip has n, epoch e sees number e mod n,
            and only what is withheld from the condition is new in every epoch.
        augmentation: random changes.
        packed: read the clips of a packed set, and nothing below `root`.
        condition: what is drawn to steer by.

    Raises:
        UserError: as `Manifest.open`; the split is unknown; a clip is shorter than a window, or has
            so few frames a second that one would be repeated in it.
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
        max_stride: int | None = None,
        fps: float | None = None,
        buckets: Sequence[Bucket] = (),
        views: int = 0,
        augmentation: AugmentationConfig | None = None,
        packed: PackedClips | None = None,
        condition: ConditionKind = "pose",
    ) -> None:
        self.kind = condition
        self.root, self.split, self.seed, self.views = root, split, seed, views
        self.buckets = tuple(buckets) or (Bucket(frames, size),)
        self.windows = WindowRule(range(stride, (max_stride or stride) + 1), fps)
        self.augmentation = augmentation or AugmentationConfig()
        assert seed >= 0 and views >= 0 and stride >= 1 and self.windows.strides
        manifest = (Manifest.open(root) if packed is None else packed.manifest).split(split)
        self.manifest = manifest
        # Entries of a large set are read again whenever one is asked for.
        small = len(manifest) <= CHECKED_CLIPS
        self.entries: Sequence[ManifestEntry] | Manifest
        self.entries = list(manifest.metadata()) if small else manifest
        if packed is not None and not small:
            self.entries = ManifestEntries(manifest)
        self.bucket_of = self._choose_buckets(manifest, split)
        """Index of each clip's bucket, (N,)."""
        self._epoch = 0
        make_reader = partial(ClipReader, root) if packed is None else packed.reader
        self._reader = make_reader(
            keep=cache_in_memory, one_cut=not self.augmentation.crops, condition=condition
        )

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
        """The window of clip `index` in `epoch`; errors as in `read`."""
        return self.read(index, self.view(index, epoch))

    def view(self, index: int, epoch: int) -> View:
        """What `epoch` sees of clip `index`.

        Where cuts are made, the pose file is read; errors as in `condition`.
        """
        entry, bucket = self.entries[index], self.buckets[self.bucket_of[index]]
        key = ViewKey(self.seed, epoch % self.views if self.views else epoch, entry.id)
        stride = draw_stride(key, self.windows.fitting(bucket.frames, entry.frames, entry.fps))
        step = self.windows.step(entry.fps, stride)
        view = View(
            start=draw_start(key, entry.frames - window_span(bucket.frames, step) + 1),
            step=step,
            frames=bucket.frames,
            box=(0, 0, entry.width, entry.height),
            size=bucket.size,
            flip=can_mirror(entry.caption) and draw_flip(key, self.augmentation),
        )
        if self.augmentation.crops:
            poses = self._reader.poses(entry).frames(view.indices)
            view = replace(view, box=draw_box(key, self.augmentation, bucket.size, poses))
        if self.augmentation.withholds:
            # Nothing is ever made from it that could be kept, so it need not come back.
            view = replace(view, pose_seed=draw_pose_seed(replace(key, epoch=epoch)))
        return view

    def read(self, index: int, view: View) -> Clip:
        """Clip `index` as `view` shows it.

        Raises:
            UserError: video and poses do not fit each other or the manifest, or cannot be read;
                the message names the clip or the file.
        """
        entry = self.entries[index]
        self._reader.check(entry)
        pixels = self._reader.seen_pixels(entry, view)
        return Clip(pixels=pixels, **vars(self.condition(index, view, pixels)))

    def condition(
        self, index: int, view: View, pixels: NDArray[np.uint8] | None = None
    ) -> Condition:
        """What `read` gives, without the pixels: the video is not opened but for edges, where
        `pixels` does not hold what the view sees of it.

        Raises:
            UserError: the pose file does not fit the manifest, or cannot be read.
        """
        entry = self.entries[index]
        poses = self._reader.seen_poses(entry, view)
        if view.pose_seed is not None:
            poses = withheld(poses, self.augmentation, view.pose_seed)
        if not reads_video(self.kind):
            drawn = self._reader.drawn(entry, view, poses)
        else:
            drawn = draw_edges(self._reader.seen_pixels(entry, view) if pixels is None else pixels)
        return Condition(
            id=entry.id,
            poses=replace(poses, fps=entry.fps / view.step),
            pose_frames=drawn,
            frame_weights=frame_weights(self.kind, poses),
            caption=_caption(entry, view),
            start=view.start,
        )

    def caption(self, index: int, view: View) -> str:
        """The caption that `condition` gives; no file is opened."""
        return _caption(self.entries[index], view)

    def check_poses(self) -> None:
        """Open every pose file of the split, and no video; errors as in `condition`."""
        for entry in tqdm(self.entries, desc="check poses", unit="clip", delay=2, leave=False):
            self._reader.poses(entry)

    def check(self) -> None:
        """Open every clip of the split, decoding only its first frame; errors as in `read`."""
        for entry in tqdm(
            self.entries, desc="check clips", unit="clip", delay=2, leave=False, disable=None
        ):
            self._reader.check(entry)

    def _choose_buckets(self, manifest: Manifest, split: str) -> NDArray[np.int16]:
        clips = manifest.columns
        fitting = [self.windows.fits(each.frames, clips.frames, clips.fps) for each in self.buckets]
        chosen = best_buckets(self.buckets, clips.width, clips.height, fitting)
        short = np.flatnonzero(chosen == NO_BUCKET)
        if len(short):
            (first,) = manifest.metadata(short[:1].tolist())
            least = min(each.frames for each in self.buckets)
            raise UserError(
                f"{self.root}: clip '{first.id}' "
                f"{self.windows.why_not(least, first.frames, first.fps)}; {len(short)} of "
                f"{len(chosen)} clips of split '{split}' are too short"
            )
        return chosen


def _caption(entry: ManifestEntry, view: View) -> str:
    return mirrored_caption(entry.caption) if view.flip else entry.caption


def pixel_values(frames: NDArray[np.uint8]) -> Tensor:
    """Frames uint8 (B, F, H, W, 3) as models read them: float32 (B, F, 3, H, W) in [-1, 1]."""
    return rearrange(torch.from_numpy(frames), "b f h w c -> b f c h w").float() / 127.5 - 1


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of equal frames and size."""
    pose_frames = torch.from_numpy(np.stack([clip.pose_frames for clip in clips]))
    return ClipBatch(
        ids=[clip.id for clip in clips],
        pixels=pixel_values(np.stack([clip.pixels for clip in clips])),
        pose_frames=pose_frames.float() / 255,
        frame_weights=torch.from_numpy(np.stack([clip.frame_weights for clip in clips])),
        captions=[clip.caption for clip in clips],
    )
