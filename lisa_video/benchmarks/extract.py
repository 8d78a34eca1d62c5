"""How much sooner a folder is extracted with more workers.

Rounds of the whole job, workers starting and all, on copies of one real clip: each round runs it
with one worker and with several, in turns, into folders of their own.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lisa_video.assets import fetch_asset
from lisa_video.benchmarks.data_config import ExtractBenchmarkConfig
from lisa_video.detectors import check_detector
from lisa_video.errors import UserError
from lisa_video.extraction.job import check_extraction, extract
from lisa_video.extraction_config import ClipsConfig, ExtractPosesConfig
from lisa_video.manifest import load_manifest
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.video import count_frames

_CLIP = "carphone_pristine.mp4"
_PARTS = ClipsConfig(max_frames=60)  # so that clips are encoded, not copied


@dataclass(frozen=True)
class ExtractTimes:
    """Seconds of each round."""

    frames: int
    """Of all videos together."""
    one: list[float]
    """With one worker."""
    several: list[float]

    def speedup(self) -> float:
        """Median over rounds of how many times faster several workers were."""
        return statistics.median(a / b for a, b in zip(self.one, self.several, strict=True))

    def to_json(self) -> dict[str, Any]:
        """With the speedup of each round."""
        return {
            "frames": self.frames,
            "one_worker_s": self.one,
            "several_workers_s": self.several,
            "speedup": self.speedup(),
        }


def check(config: ExtractBenchmarkConfig) -> None:
    """Raises UserError for what is wrong before anything is measured."""
    check_detector(config.detector)
    if config.video is not None and not config.video.is_file():
        raise UserError(f"{config.video}: no such video")
    if config.json is not None:
        check_new_file(config.json)


def run(config: ExtractBenchmarkConfig) -> None:
    """Measure, print the table, and write the JSON asked for."""
    times = measure(config)
    rows = [
        [f"{workers} workers", f"{statistics.median(seconds):.1f}", f"{rate:.1f}"]
        for workers, seconds in ((1, times.one), (config.workers, times.several))
        for rate in [times.frames / statistics.median(seconds)]
    ]
    print(format_table(["extraction", "seconds", "frames/s"], rows))
    print(f"speedup by {config.workers} workers: {times.speedup():.2f}")
    if config.json is not None:
        versions = package_versions("av", "ai-edge-litert", "numpy")
        write_json(config.json, times.to_json() | {"versions": versions})


def measure(config: ExtractBenchmarkConfig) -> ExtractTimes:
    """Run the rounds in a temporary folder."""
    clip = config.video or fetch_asset("clips") / _CLIP
    seconds: dict[int, list[float]] = {1: [], config.workers: []}
    with tempfile.TemporaryDirectory() as temporary:
        videos = Path(temporary) / "videos"
        videos.mkdir()
        for number in range(config.videos):
            (videos / f"{number}{clip.suffix}").write_bytes(clip.read_bytes())
        for number in tqdm(range(config.repeats), desc="extract", unit="round", disable=None):
            order = list(seconds) if number % 2 == 0 else list(seconds)[::-1]
            for workers in order:
                out = Path(temporary) / f"{number}-{workers}"
                seconds[workers].append(_seconds(config, videos, out, workers))
    frames = config.videos * count_frames(clip)
    return ExtractTimes(frames, seconds[1], seconds[config.workers])


def _seconds(config: ExtractBenchmarkConfig, videos: Path, out: Path, workers: int) -> float:
    job = ExtractPosesConfig(
        videos, out, detector=config.detector, clips=_PARTS, engine=config.engine, workers=workers
    )
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        check_extraction(job)
        extract(job)
    elapsed = time.perf_counter() - start
    done = len({entry.id.rpartition("-")[0] for entry in load_manifest(out)})
    if done != config.videos:
        raise UserError(f"{done} of {config.videos} videos gave clips: nothing to compare")
    return elapsed
