"""The dataset format, version 2: a folder of clips, pose files and a manifest; see data/README.md.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import clip_sha256
from lisa_video.errors import UserError
from lisa_video.manifest_index import MANIFEST, Manifest, ManifestColumns
from lisa_video.manifest_lines import FORMAT, FORMAT_VERSION, NAME_RULE, ManifestEntry, is_name
from lisa_video.poses import PoseSequence
from lisa_video.video import even_size, write_video

__all__ = [
    "MANIFEST",
    "DatasetWriter",
    "Manifest",
    "ManifestColumns",
    "ManifestEntry",
    "check_lengths",
    "check_sizes",
    "load_manifest",
    "write_manifest",
]

CLIP_FOLDER = "clips"
POSE_FOLDER = "poses"


def load_manifest(root: Path) -> list[ManifestEntry]:
    """All entries of a dataset at once; for sets of many clips see `Manifest`.

    Raises:
        UserError: as `Manifest.open`, which here looks for every file.
    """
    return list(Manifest.open(root, check_files=True).metadata())


class DatasetWriter:
    """Write a dataset clip by clip, as a context manager.

    The manifest appears when the block ends well; before that, or after an error, the folder holds
    clips but is not a dataset.

    Args:
        root: folder to make; it may exist without clips of an earlier dataset in it.
        crf: quality of the clips, see `VideoWriter`.

    Raises:
        UserError: the folder holds a dataset or the clips of an interrupted one.
    """

    def __init__(self, root: Path, *, crf: int = 12) -> None:
        self.root, self._crf = root, crf
        self._entries: dict[str, ManifestEntry] = {}
        if (root / MANIFEST).exists():
            raise UserError(f"{root}: holds a dataset already; choose another folder")
        for name in (CLIP_FOLDER, POSE_FOLDER):
            folder = root / name
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise UserError(f"{folder}: left by another run; remove it or choose another root")
        try:
            for name in (CLIP_FOLDER, POSE_FOLDER):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{root}: cannot make this folder: {error.strerror}") from None

    def __enter__(self) -> DatasetWriter:
        return self

    def add(
        self, id: str, frames: NDArray[np.uint8], poses: PoseSequence, *, caption: str, split: str
    ) -> ManifestEntry:
        """Write one clip and its poses.

        Args:
            id: names the files; see `ManifestEntry`, also for the split.
            frames: uint8 (F, H, W, 3). An odd size becomes even as `VideoWriter` does it; the
                keypoints stay where they are.
            poses: of these frames, in their pixels; its fps is the clip's.
            caption: what is seen, in one line.
            split: "train", "validation" or another name.

        Raises:
            UserError: a bad or repeated id, a bad split, or poses of another length or size.
        """
        if not is_name(id):
            raise UserError(f"clip id {id!r}: use {NAME_RULE}")
        if id in self._entries:
            raise UserError(f"clip id '{id}' is given twice")
        if not is_name(split):
            raise UserError(f"clip '{id}': its split is {split!r}, use {NAME_RULE}")
        check_lengths(id, len(frames), len(poses))
        height, width = frames.shape[1:3]
        check_sizes(id, (width, height), (poses.width, poses.height))
        # Padding is added at the right and at the bottom, so no keypoint moves.
        width, height = even_size(width, height)
        video, pose_file = f"{CLIP_FOLDER}/{id}.mp4", f"{POSE_FOLDER}/{id}.npz"
        write_video(self.root / video, frames, poses.fps, crf=self._crf)
        replace(poses, width=width, height=height).save(self.root / pose_file)
        entry = ManifestEntry(
            id=id,
            video=video,
            poses=pose_file,
            caption=caption,
            fps=float(poses.fps),
            frames=len(frames),
            width=width,
            height=height,
            split=split,
            people=poses.keypoints.shape[1],
            sha256=clip_sha256(self.root / video),
        )
        self._entries[id] = entry
        return entry

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            write_manifest(self.root, list(self._entries.values()))


def write_manifest(root: Path, entries: Iterable[ManifestEntry]) -> None:
    """Write the manifest of a dataset, whole or not at all; an earlier one is replaced.

    Raises:
        UserError: there is no entry, or the file cannot be written.
    """
    temporary = root / f".{MANIFEST}.{os.getpid()}.tmp"
    count = 0
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(_json_line({"format": FORMAT, "version": FORMAT_VERSION}))
            for entry in entries:
                file.write(_json_line(asdict(entry)))
                count += 1
        if not count:
            raise UserError(f"{root}: no clip was added, so there is no dataset to write")
        os.replace(temporary, root / MANIFEST)
    except OSError as error:
        raise UserError(f"{root / MANIFEST}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _json_line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def check_lengths(source: str, video_frames: int, pose_frames: int) -> None:
    """UserError where a video and its poses have different numbers of frames."""
    if video_frames != pose_frames:
        raise UserError(
            f"{source}: the video has {video_frames} frames, its poses have {pose_frames}; "
            "extract the poses from this very file"
        )


def check_sizes(source: str, video: tuple[int, int], poses: tuple[int, int]) -> None:
    """UserError where poses are in the pixels of a video of another size (width, height)."""
    if video != poses:
        raise UserError(
            f"{source}: the video has {video[0]}x{video[1]} pixels, its poses are for "
            f"{poses[0]}x{poses[1]}; extract the poses from this very file"
        )
