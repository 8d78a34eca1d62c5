"""Pixels and poses of a dataset's clips as views show them, from files or kept in memory.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.manifest import ManifestEntry, check_lengths, check_sizes
from lisa_video.mirroring import mirrored_frames, mirrored_poses
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.video import probe_video, read_video
from lisa_video.views import View, cut_frames, cut_poses


class ClipReader:
    """Reads clips below `root`.

    With `keep` every clip is read whole the first time and kept. Where `one_cut` says that all
    views of a clip have one box and size, it is kept cut, resized and with its poses drawn, and as
    decoded otherwise.
    """

    def __init__(self, root: Path, *, keep: bool, one_cut: bool) -> None:
        self.root, self.keep, self.one_cut = root, keep, one_cut
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
            path = self.root / entry.poses
            poses = PoseSequence.load(path, require_people=True)
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
            return _draw(poses)
        key = (entry.id, view.flip)
        if key not in self._drawn:
            self._drawn[key] = _draw(_seen(self.poses(entry), view))
        return self._drawn[key][view.indices]

    def seen_pixels(self, entry: ManifestEntry, view: View) -> NDArray[np.uint8]:
        """The pixels of a view, (F, H, W, 3); without `keep` only its frames are decoded.

        Raises:
            UserError: the video cannot be read; the message names the file.
        """
        path, wanted = self.root / entry.video, view.indices
        if not self.keep:
            pixels = cut_frames(read_video(path, wanted).frames, view.box, view.size)
        elif self.one_cut:
            if entry.id not in self._pixels:
                whole = read_video(path).frames
                self._pixels[entry.id] = cut_frames(whole, view.box, view.size)
            pixels = self._pixels[entry.id][wanted]
        else:
            if entry.id not in self._pixels:
                self._pixels[entry.id] = read_video(path).frames
            pixels = cut_frames(self._pixels[entry.id][wanted], view.box, view.size)
        return mirrored_frames(pixels) if view.flip else pixels


def _seen(poses: PoseSequence, view: View) -> PoseSequence:
    cut = cut_poses(poses, view.box, view.size)
    return mirrored_poses(cut) if view.flip else cut


def _draw(poses: PoseSequence) -> NDArray[np.uint8]:
    size = (poses.width, poses.height)
    return (draw_pose_frames(poses.keypoints, size, size) * 255).round().astype(np.uint8)


def _check_stated(path: Path, entry: ManifestEntry, frames: int, width: int, height: int) -> None:
    for name, found in (("frames", frames), ("width", width), ("height", height)):
        stated = getattr(entry, name)
        if found != stated:
            raise UserError(
                f"{path}: {name} is {found}, the manifest says {stated} for clip '{entry.id}'"
            )
