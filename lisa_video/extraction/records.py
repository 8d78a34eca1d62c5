"""What passes between the stages of an extraction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lisa_video.manifest import ManifestEntry


@dataclass(frozen=True)
class Source:
    """A video of the folder, or a folder of images in it."""

    path: Path
    relative: str
    """Path below the folder, with forward slashes."""
    id: str
    """Unique, and a function of `relative` alone; those of its clips begin with it."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change, in nanoseconds."""
    caption: str | None = None
    """Caption of its clips; None: what lies beside it, or the template says."""
    split: str | None = None
    """Split of its clips; None: drawn from its path."""
    image_fps: float | None = None
    """Frames per second of a folder of images; None: it is a video."""


@dataclass(frozen=True)
class Skipped:
    """A video, a folder, or a part of a video that is not in the dataset: a line of skipped.jsonl."""

    source: str
    """Path below the folder of videos."""
    reason: str
    start: int | None = None
    """First frame of the part, None where all of it is skipped."""
    stop: int | None = None
    """Frame behind the part."""


@dataclass(frozen=True)
class SourceRecord:
    """What came of a video."""

    source: Source
    clips: tuple[ManifestEntry, ...]
    skipped: tuple[Skipped, ...]

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it back; without the place of the folder."""
        return {
            "source": self.source.relative,
            "id": self.source.id,
            "size": self.source.size,
            "mtime_ns": self.source.mtime_ns,
            "clips": [asdict(clip) for clip in self.clips],
            "skipped": [asdict(part) for part in self.skipped],
        }

    @classmethod
    def from_json(cls, folder: Path, value: dict[str, Any]) -> SourceRecord:
        """Raises KeyError or TypeError where `value` is not of `to_json`."""
        relative = value["source"]
        source = Source(folder / relative, relative, value["id"], value["size"], value["mtime_ns"])
        clips = tuple(ManifestEntry(**clip) for clip in value["clips"])
        return cls(source, clips, tuple(Skipped(**part) for part in value["skipped"]))
