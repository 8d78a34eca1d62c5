"""Pixels and poses of a dataset's clips as views show them, from files or kept in memory.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lisa_video.condition_config import ConditionKind
from lisa_video.conditions import draw_poses
from lisa_video.errors import UserError
from lisa_video.manifest import ManifestEntry, check_lengths, check_sizes
from lisa_video.mirroring import mirrored_frames, mirrored_poses
from lisa_video.poses import PoseSequence
from lisa_video.video import probe_video, read_video
from lisa_video.views import View, cut_frames, cut_poses


class ClipReader:
    """Reads clips below `root`.

    With `keep` every clip is read whole the first time and kept. Where `one_cut` says that all
    views of a clip have one box and size, it is kept cut, resized and with its poses drawn, and as
    decoded otherwise. `condition` is what is drawn of poses.
    """

    def __init__(
        self, root: Path, *, keep: bool, one_cut: bool, condition: ConditionKind = "pose"
    ) -> None:
        self.root, self.keep, self.one_cut = root, keep, one_cut
        self.kind = condition
        self._checked: set[str] = set()
        self._pixels: dict[str, NDArray[np.uint8]] = {}
        self._poses: dict[str, PoseSequence] = {}
        self._drawn: dict[tuple[str, bool], NDArray[np.uint8]] = {}

    def check(self, entry: ManifestEntry) -> None:
        """The first time, compare video, poses and manifest.

        Raises:
            UserError: they do not fit each other, or a file cannot be read; the message names it.
        """
        if entry.id in self._checked:
            return
        poses = PoseSequence.load(self.root / entry.poses, require_people=True)
        path = self.root / entry.video
        info = probe_video(path)
        check_lengths(str(path), info.frames, len(poses))
        check_sizes(str(path), (info.width, info.height), (poses.width, poses.height))
        _check_stated(path, entry, info.frames, info.width, info.height)
        self._checked.add(entry.id)

    def poses(self, entry: ManifestEntry) -> PoseSequence:
        """Poses of the whole clip; the video is not opened.

        Raises:
            UserError: they do not fit the manifest, or cannot be read; the message names the file.
        """
        poses = self._poses.get(entry.id)
        if poses is None:
            poses = self.load_poses(entry)
            path = self.root / entry.poses
            _check_stated(path, entry, len(poses), poses.width, poses.height)
            if self.keep:
                self._poses[entry.id] = poses
        return poses

    def seen_poses(self, entry: ManifestEntry, view: View) -> PoseSequence:
        """The poses of a view, in the pixels of its frames; errors as in `poses`."""
        return _seen(self.poses(entry).frames(view.indices), view)

    def drawn(self, entry: ManifestEntry, view: View, poses: PoseSequence) -> NDArray[np.uint8]:
        """The `poses` of a view drawn, (F, 3, H, W)."""
        if not (self.keep and self.one_cut) or view.pose_seed is not None:
            return draw_poses(self.kind, poses)
        key = (entry.id, view.flip)
        if key not in self._drawn:
            self._drawn[key] = draw_poses(self.kind, _seen(self.poses(entry), view))
        return self._drawn[key][view.indices]

    def seen_pixels(self, entry: ManifestEntry, view: View) -> NDArray[np.uint8]:
        """The pixels of a view, (F, H, W, 3); without `keep` only its frames are decoded.

        Raises:
            UserError: the video cannot be read; the message names the file.
        """
        wanted = view.indices
        if not self.keep:
            pixels = cut_frames(self.decode(entry, wanted), view.box, view.size)
        elif self.one_cut:
            if entry.id not in self._pixels:
                self._pixels[entry.id] = cut_frames(self.decode(entry), view.box, view.size)
            pixels = self._pixels[entry.id][wanted]
        else:
            if entry.id not in self._pixels:
                self._pixels[entry.id] = self.decode(entry)
            pixels = cut_frames(self._pixels[entry.id][wanted], view.box, view.size)
        return mirrored_frames(pixels) if view.flip else pixels

    # The files themselves.

    def load_poses(self, entry: ManifestEntry) -> PoseSequence:
        """Poses of the whole clip, from its file; UserError where it cannot be read."""
        return PoseSequence.load(self.root / entry.poses, require_people=True)

    def decode(
        self, entry: ManifestEntry, indices: Sequence[int] | None = None
    ) -> NDArray[np.uint8]:
        """All frames of the video, or those at `indices`; UserError where it cannot be read."""
        return read_video(self.root / entry.video, indices).frames


def _seen(poses: PoseSequence, view: View) -> PoseSequence:
    cut = cut_poses(poses, view.box, view.size)
    return mirrored_poses(cut) if view.flip else cut


def _check_stated(path: Path, entry: ManifestEntry, frames: int, width: int, height: int) -> None:
    for name, found in (("frames", frames), ("width", width), ("height", height)):
        stated = getattr(entry, name)
        if found != stated:
            raise UserError(
                f"{path}: {name} is {found}, the manifest says {stated} for clip '{entry.id}'"
            )
