"""Whether reading keeps up with training: from a cache, from packed encodings, and from video.

A small set is rendered, cached and packed. Then one batch of each source and one LISA training step
take turns in one process, which reads by itself: further reading processes only add to what is
measured. Encoding, which video needs on top, is not counted.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lisa_video.backbones.base import VideoBackbone
from lisa_video.benchmarks import step as training_step
from lisa_video.benchmarks.config import StepBenchmarkConfig
from lisa_video.benchmarks.data_config import LoaderBenchmarkConfig
from lisa_video.benchmarks.measure import interleaved_medians
from lisa_video.caching import job as caching
from lisa_video.caching.config import CacheConfig
from lisa_video.manifest import DatasetWriter
from lisa_video.packing import job as packing
from lisa_video.packing.config import PackConfig
from lisa_video.poses import PoseSequence
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.batches import Batch
from lisa_video.training.config import DataConfig, ProbeConfig, TrainConfig
from lisa_video.training.setup import open_backbone
from lisa_video.training.sources import open_sources

SOURCES = ("cache", "shards", "video")
_SOURCE_SCALE = 2  # sides of the videos, in those that training sees


@dataclass(frozen=True)
class LoaderCosts:
    """Medians over batches and steps."""

    batch_size: int
    seconds: dict[str, float]
    """Of one batch of each source, and of one `step`."""

    def clips_per_second(self, name: str) -> float:
        return self.batch_size / self.seconds[name]

    def ratio(self, source: str) -> float:
        """Clips read in the time in which a step takes one."""
        return self.seconds["step"] / self.seconds[source]

    def to_json(self) -> dict[str, Any]:
        rates = {f"{name}_clips_per_s": self.clips_per_second(name) for name in self.seconds}
        return rates | {f"{name}_to_step": self.ratio(name) for name in SOURCES}


def check(config: LoaderBenchmarkConfig) -> None:
    """Raises UserError for the output file, the backbone, the tap or the size."""
    if config.json is not None:
        check_new_file(config.json)
    training_step.check(_step_config(config))


def run(config: LoaderBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    print(format_costs(costs))
    print(
        f"{config.batch_size} clips of {config.frames} frames, {config.size[0]}x{config.size[1]} "
        f"pixels, read by the training process; medians of {config.repeats}"
    )
    if config.json is not None:
        write_json(config.json, costs.to_json() | {"versions": package_versions("torch")})


def measure_costs(config: LoaderBenchmarkConfig) -> LoaderCosts:
    """Make the set in a folder of its own, then time all sources and the step."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="lisa_video_") as name:
        folder = Path(name)
        write_noise_clips(config, folder / "clips")
        trainings = prepare(config, folder)
        backbone = open_backbone(config.backbone)
        batches = {name: _batches(each, backbone) for name, each in trainings.items()}
        timed: dict[str, Callable[[], object]] = {
            name: _next(each) for name, each in batches.items()
        }
        timed["step"] = training_step.build_step(_step_config(config), backbone, "lisa")
        device = torch.device("cpu")
        seconds = interleaved_medians(timed, config.repeats, config.warm_up, device)
    return LoaderCosts(config.batch_size, seconds)


def write_noise_clips(config: LoaderBenchmarkConfig, root: Path) -> None:
    """Moving gradients under a walking skeleton of random joints."""
    frames = 3 * config.frames
    width, height = (_SOURCE_SCALE * side for side in config.size)
    with DatasetWriter(root) as writer:
        for index in range(config.clips):
            rng = np.random.default_rng([config.seed, index])
            ramp = np.add.outer(np.arange(height), np.arange(width))
            shifts = rng.integers(1, 8) * np.arange(frames)
            grey = (ramp[None] + shifts[:, None, None]) % 256
            pixels = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
            keypoints = np.ones((frames, 1, 18, 3), np.float32)
            keypoints[..., 0] = rng.uniform(0, width, (1, 1, 18))
            keypoints[..., 1] = rng.uniform(0, height, (frames, 1, 18))
            poses = PoseSequence(keypoints, width, height, fps=25.0, detector="ground-truth")
            writer.add(f"clip_{index:05d}", pixels, poses, caption="noise", split="train")


def prepare(config: LoaderBenchmarkConfig, folder: Path) -> dict[str, TrainConfig]:
    """Cache and pack the set; the settings of a training from each source."""
    data = DataConfig(
        folder / "clips",
        frames=config.frames,
        size=config.size,
        batch_size=config.batch_size,
        views=1,
    )
    video = TrainConfig(
        config.backbone, data, folder / "run", seed=config.seed, probe=ProbeConfig(every=0)
    )
    cached = replace(video, data=replace(data, cache=folder / "cache"))
    packed = replace(video, data=replace(data, shards=str(folder / "packed")))
    with redirect_stdout(StringIO()):
        caching.run(CacheConfig(**vars(cached)))
        packing.run(PackConfig(**vars(cached), pack_to=str(folder / "packed")))
    return {"cache": cached, "shards": packed, "video": video}


def format_costs(costs: LoaderCosts) -> str:
    """The table of clips per second."""
    titles = {
        "cache": "read from cache",
        "shards": "read from packed encodings",
        "video": "read from video, not encoded",
    }
    rows = [["LISA training step", f"{costs.clips_per_second('step'):.1f}", "1.0"]]
    rows += [
        [titles[name], f"{costs.clips_per_second(name):.1f}", f"{costs.ratio(name):.1f}"]
        for name in SOURCES
    ]
    return format_table(["", "clips/s", "of the step's"], rows)


def _batches(config: TrainConfig, backbone: VideoBackbone) -> Iterator[Batch]:
    return open_sources(config, backbone).stream(config, process=0, processes=1).batches(0)


def _next(batches: Iterator[Batch]) -> Callable[[], Batch]:
    return lambda: next(batches)


def _step_config(config: LoaderBenchmarkConfig) -> StepBenchmarkConfig:
    return StepBenchmarkConfig(
        backbone=config.backbone,
        tap=config.tap,
        batch_size=config.batch_size,
        frames=config.frames,
        size=config.size,
        device="cpu",
        threads=config.threads,
        seed=config.seed,
    )
