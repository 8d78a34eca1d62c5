"""What a training run reads from a cache: the encodings of its views and captions, by key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lisa_video.caching.keys import EncoderKeys
from lisa_video.caching.shards import FileState
from lisa_video.caching.store import CacheIndex
from lisa_video.clip_files import clip_sha256
from lisa_video.dataset import ClipDataset
from lisa_video.errors import UserError
from lisa_video.manifest import ManifestEntry
from lisa_video.views import View


@dataclass(frozen=True)
class Reading:
    """The clips of one split that are read, and how often their views come back."""

    clips: ClipDataset
    count: int
    """Clips that are read: the first ones."""
    views: int
    """Views of each."""

    def by_clip(self) -> Iterator[list[PlannedView]]:
        """The views of each clip."""
        for index in tqdm(
            range(self.count), desc="list views", unit="clip", delay=2, leave=False, disable=None
        ):
            entry = self.clips.entries[index]
            views = [self.clips.view(index, epoch) for epoch in range(self.views)]
            yield [
                PlannedView(entry, view.picture, self.clips.caption(index, view)) for view in views
            ]


@dataclass(frozen=True)
class PlannedView:
    """One view that is read."""

    entry: ManifestEntry
    view: View
    caption: str


@dataclass(frozen=True)
class Plan:
    """All that a run reads, by key, each once."""

    views: dict[str, PlannedView]
    """Of latents; equal windows of equal videos share one."""
    captions: dict[str, str]
    """Of text states."""
    entries: list[ManifestEntry]
    """The clips."""


def make_plan(readings: Sequence[Reading], keys: EncoderKeys) -> Plan:
    """The encodings of all views, of their captions and of the empty caption."""
    plan = Plan({}, {keys.states(""): ""}, [])
    for clip in (clip for reading in readings for clip in reading.by_clip()):
        plan.entries.append(clip[0].entry)
        for planned in clip:
            plan.views.setdefault(keys.latents(planned.entry.sha256, planned.view), planned)
            plan.captions.setdefault(keys.states(planned.caption), planned.caption)
    return plan


def video_key(entry: ManifestEntry) -> str:
    """Under which a cache remembers the state of this file with this content: 64 digits."""
    return hashlib.sha256(f"{entry.sha256} {entry.video}".encode()).hexdigest()


def check_unchanged(
    root: Path, entries: Sequence[ManifestEntry], index: CacheIndex, *, unknown: bool
) -> dict[str, FileState]:
    """Raise UserError where a video is not the one that the manifest names.

    Videos whose size and time are those that the cache remembers pass without being read. The others
    are read, those that it does not know only where `unknown` says so; their states are returned, by
    `video_key`.
    """
    names = [video_key(entry) for entry in entries]
    read: dict[str, FileState] = {}
    for name, entry, known in tqdm(
        zip(names, entries, index.states_of(names), strict=True),
        desc="look for changed videos",
        total=len(entries),
        unit="video",
        delay=2,
        leave=False,
        disable=None,
    ):
        state = FileState.of(root / entry.video)
        if known != state and (unknown or known is not None):
            check_content(root, entry)
            read[name] = state
    return read


def check_content(root: Path, entry: ManifestEntry) -> None:
    """Read the whole video; UserError where it is not the one that the manifest names."""
    if clip_sha256(root / entry.video) != entry.sha256:
        raise UserError(
            f"{root / entry.video}: has changed since the manifest was written (its SHA-256 is "
            f"another one); write the manifest of clip '{entry.id}' anew"
        )
