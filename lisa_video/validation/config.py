"""Settings of the job that validates a dataset. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.errors import UserError

Level = Literal["error", "warning", "off"]

CHECKS: Mapping[str, tuple[Level, str]] = {
    "line": ("error", "a line of the manifest that is not right"),
    "id": ("error", "an id that an earlier line has"),
    "file": ("error", "a file that is missing, or a link out of the folder"),
    "duplicate": ("error", "the video of an earlier clip of the split (SHA-256)"),
    "leak": ("error", "a video or source that another split has, too"),
    "length": ("error", "fewer frames than a training window spans"),
    "frames": ("warning", "a number of frames that the backbone cannot take whole"),
    "fps": ("warning", "an unusual frame rate"),
    "size": ("warning", "a small picture"),
    "video": ("error", "a video that cannot be read or is not as the manifest says"),
    "hash": ("error", "a video whose content has changed (with hashes: true)"),
    "poses": ("error", "a pose file that cannot be read or does not fit the video"),
    "people": ("error", "nobody in any frame"),
    "missing": ("warning", "many frames without a pose"),
    "confidence": ("warning", "unsure poses"),
}
"""Name -> level unless `levels` gives another, and what it finds."""

FRAME_STEPS: Mapping[str, int] = {"animatediff": 1, "wan": 4, "cogvideox": 8}
"""Backbone -> its frames are 1 + k times this many."""


@dataclass(frozen=True)
class ValidateDataConfig:
    """Check a dataset before it is trained on."""

    dataset: Path
    """Folder of the dataset; may come without a flag."""
    metadata_only: bool = False
    """Look at the manifest and for its files, and open none of them."""
    decode: bool = False
    """Decode every frame; otherwise each video is read through, and its first frame decoded."""
    hashes: bool = False
    """Compare each video with its SHA-256, for which all of it is read."""
    levels: dict[str, Level] = field(default_factory=dict)
    """Checks whose findings count as error, warning or off, other than usual, such as
    {duplicate: warning}."""
    window: int = 1
    """Frames that training takes of a clip."""
    stride: int = 1
    """Video frames from one of them to the next."""
    backbone: Literal["animatediff", "wan", "cogvideox"] | None = None
    """Backbone that whole clips are meant for: Wan takes 1 + 4k frames, CogVideoX 1 + 8k."""
    min_fps: float = 8.0
    """Frames per second below which a rate is unusual."""
    max_fps: float = 61.0
    """Above which it is."""
    min_side: int = 64
    """Pixels of the shorter side below which a picture is small."""
    max_missing: float = 0.5
    """Share of frames without a pose that is still few."""
    min_confidence: float = 0.3
    """Mean confidence of the body's joints, where there is a pose, that is still sure."""
    source_of_id: str = r"(.*-[0-9a-f]{12})-\d{4,}"
    """Regular expression of ids, whose group is the source that a clip was cut from: the default is
    what extract_poses.py gives to folders. Clips of a source belong into one split."""
    workers: int = 0
    """Clips looked at at a time; 0 takes one for each core."""
    engine: Literal["local", "ray"] = "local"
    """Where that is: processes of this machine, or Ray (RAY_ADDRESS names a cluster)."""
    html: Path | None = None
    """Page to write, with thumbnails and skeletons (.html); must not exist."""
    thumbnails: int = 24
    """Clips on it: those with findings first, then some spread over the set."""
    json: Path | None = None
    """File for the findings as JSON; must not exist."""
    fix: bool = False
    """Write manifest.cleaned.jsonl beside the manifest, without the clips that have an error."""

    def __post_init__(self) -> None:
        unknown = sorted(self.levels.keys() - CHECKS.keys())
        if unknown:
            raise UserError(f"levels: no check '{unknown[0]}', known: {', '.join(CHECKS)}")
        for name, least in (("window", 1), ("stride", 1), ("workers", 0), ("thumbnails", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be at least {least}")
        for name in ("max_missing", "min_confidence"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)}: must be from 0 to 1")
        if not 0 <= self.min_fps <= self.max_fps:
            raise UserError(f"min_fps={self.min_fps}: must be from 0 to max_fps={self.max_fps}")
        if self.html is not None and self.html.suffix != ".html":
            raise UserError(f"html={self.html}: a page ends in .html")
        try:
            groups = re.compile(self.source_of_id).groups
        except re.error as error:
            raise UserError(f"source_of_id={self.source_of_id!r}: {error}") from None
        if groups != 1:
            raise UserError(f"source_of_id={self.source_of_id!r}: has {groups} groups, not one")

    @property
    def span(self) -> int:
        """Frames of a video that a training window spans."""
        return (self.window - 1) * self.stride + 1

    @property
    def processes(self) -> int:
        """Workers to start."""
        return self.workers or os.cpu_count() or 1

    def level(self, check: str) -> Level:
        """Of a check's findings."""
        return self.levels.get(check, CHECKS[check][0])
