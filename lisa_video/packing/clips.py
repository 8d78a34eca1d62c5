"""Clips read from a packed set, in place of a dataset's folder.

Shapes: N clips of a split.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_reader import ClipReader
from lisa_video.condition_config import ConditionKind
from lisa_video.errors import UserError
from lisa_video.manifest import MANIFEST, Manifest, ManifestEntry
from lisa_video.packing.packed_set import PackedSet
from lisa_video.poses import PoseSequence
from lisa_video.video import read_video

if TYPE_CHECKING:
    from lisa_video.dataset import ClipDataset

Value = TypeVar("Value")

_FIRST_LINE = 2  # of a manifest's clips
_KEPT_PARTS = 8  # a clip's poses may be asked for twice, its video once for each view


class PackedReader(ClipReader):
    """Reads clips of a packed set; with `keep` they are kept in memory, see `ClipReader`."""

    def __init__(
        self, packed: PackedSet, *, keep: bool, one_cut: bool, condition: ConditionKind = "pose"
    ) -> None:
        super().__init__(Path(packed.storage.url), keep=keep, one_cut=one_cut, condition=condition)
        self._packed = packed
        self._parts: OrderedDict[tuple[int, int], dict[str, bytes]] = OrderedDict()

    def check(self, entry: ManifestEntry) -> None:
        """Shards are made of clips that were checked, and each part of them has a checksum."""

    def load_poses(self, entry: ManifestEntry) -> PoseSequence:
        return self._as_file(
            entry, 0, "npz", lambda path: PoseSequence.load(path, require_people=True)
        )

    def decode(
        self, entry: ManifestEntry, indices: Sequence[int] | None = None
    ) -> NDArray[np.uint8]:
        return self._as_file(entry, 1, "mp4", lambda path: read_video(path, indices).frames)

    def _as_file(
        self, entry: ManifestEntry, part: int, kind: str, read: Callable[[Path], Value]
    ) -> Value:
        clip = clip_number(entry, self._packed)
        files = self._part(clip, part)
        name = f"{self.root}: {clip:09d}.{kind}"
        if kind not in files:
            raise UserError(f"{name}: is not in its shard; pack the set again")
        with tempfile.TemporaryDirectory(prefix="lisa_video_") as folder:
            path = Path(folder) / f"clip.{kind}"
            path.write_bytes(files[kind])
            try:
                return read(path)
            except UserError as error:
                raise UserError(str(error).replace(str(path), name)) from None

    def _part(self, clip: int, part: int) -> dict[str, bytes]:
        key = (clip, part)
        if key not in self._parts:
            self._parts[key] = self._packed.read(clip, part)
            if len(self._parts) > _KEPT_PARTS:
                self._parts.popitem(last=False)
        return self._parts[key]


@dataclass(frozen=True)
class PackedClips:
    """A packed set in place of a dataset's folder."""

    packed: PackedSet
    manifest: Manifest

    @classmethod
    def open(cls, url: str) -> PackedClips:
        """Raises UserError where there is no packed set, or its files contradict each other."""
        packed = PackedSet(url)
        manifest = Manifest.open(_local_manifest(packed), check_files=False)
        if len(manifest) != len(packed):
            raise UserError(
                f"{packed.storage.name(MANIFEST)}: lists {len(manifest)} clips, and the shards hold "
                f"{len(packed)}; copy the set again"
            )
        return cls(packed, manifest)

    @property
    def root(self) -> Path:
        """Its name, where that of a folder is asked for; nothing is read below it."""
        return Path(self.packed.storage.url)

    def reader(
        self, *, keep: bool, one_cut: bool, condition: ConditionKind = "pose"
    ) -> PackedReader:
        """Reads its clips; see `ClipReader`."""
        return PackedReader(self.packed, keep=keep, one_cut=one_cut, condition=condition)

    def rows(self, clips: ClipDataset) -> NDArray[np.int64]:
        """Place in the packed set of each clip of a split, (N,)."""
        return self.manifest.split(clips.split).columns.number - _FIRST_LINE

    def shards(self, clips: ClipDataset) -> NDArray[np.int32]:
        """The shard that each clip of a split lies in, (N,)."""
        return self.packed.index.shards[self.rows(clips)]


class ManifestEntries(Sequence[ManifestEntry]):
    """Clips of a manifest that stands alone, without the files that it names."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self._manifest.metadata(range(len(self))[index]))
        return next(self._manifest.metadata([index]))


def clip_number(entry: ManifestEntry, packed: PackedSet) -> int:
    """Place of a clip in the packed set, which the names of its files say."""
    match = re.fullmatch(r"(\d{9})\.npz", entry.poses)
    if match is None or int(match[1]) >= len(packed):
        raise UserError(
            f"{packed.storage.name(MANIFEST)}: clip '{entry.id}' is none of the packed ones"
        )
    return int(match[1])


def _local_manifest(packed: PackedSet) -> Path:
    """A folder with the manifest: that of the set, or a copy until this process ends."""
    if packed.storage.local is not None:
        return packed.storage.local
    folder = Path(tempfile.mkdtemp(prefix="lisa_video_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / MANIFEST).write_bytes(packed.storage.read(MANIFEST))
    return folder
