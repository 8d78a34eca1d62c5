"""Distances between all generated and all real clips, from two folders.

Shapes: N clips, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lisa_video.assets import cache_folder
from lisa_video.clip_files import find_clips
from lisa_video.errors import UserError
from lisa_video.evaluation.features import FeatureReader, VideoFeatures
from lisa_video.evaluation.parallel import Failure, Processes
from lisa_video.evaluation_config import EvaluateConfig
from lisa_video.metrics.extractors import FeatureExtractor, build_extractor, distance_name
from lisa_video.metrics.frames import FrameExtractor
from lisa_video.metrics.fvd import (
    VideoDistance,
    feature_source,
    frechet_of_features,
    infinity_of_features,
    kernel_of_features,
)
from lisa_video.metrics.presets import FvdPreset, fvd_preset
from lisa_video.metrics.sampling import ClipSampling
from lisa_video.metrics.statistics import (
    FeatureStatistics,
    load_statistics,
    save_statistics,
)

CUDA_BATCH = 16


@dataclass(frozen=True, eq=False)
class Side:
    """The clips of one folder, or what is kept of them."""

    path: Path
    features: NDArray[np.float32] | FeatureStatistics
    """(N, D)."""
    names: list[str]
    """Video of each row; empty for statistics."""
    sizes: dict[str, int]
    """Width x height in pixels -> videos."""
    fps: list[float]
    """Rates that occur; empty for images and arrays."""
    failures: list[Failure]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        videos = len(set(self.names))
        return {"path": str(self.path), "videos": videos, "sizes": self.sizes, "fps": self.fps}


@dataclass(frozen=True, eq=False)
class Distances:
    """What the distribution metrics gave."""

    values: dict[str, VideoDistance]
    """By metric."""
    protocols: dict[str, dict[str, Any]]
    """By metric: everything that is needed to compute it again."""
    real: Side
    fake: Side
    """Of fvd and kvd where they were asked for, else of fid."""

    @property
    def failures(self) -> list[Failure]:
        return self.real.failures + self.fake.failures


def measure_distances(config: EvaluateConfig, processes: Processes) -> Distances | None:
    """All distribution metrics asked for; None where there are none.

    Raises UserError where a side has nothing to compare.
    """
    preset = fvd_preset(config.preset)
    real_sampling, fake_sampling = samplings(config, preset)
    found: Distances | None = None
    if config.asked(("fvd", "kvd", "fvd_infinity")):
        extractor = build_extractor(
            config.network, preset, device=device_name(config), precision=config.precision
        )
        found = _compare(config, processes, extractor, preset, real_sampling, fake_sampling)
    if config.asked(("fid",)):
        assert config.fid_network is not None
        frames = FrameExtractor(config.fid_network, device=device_name(config))
        fid = _compare(config, processes, frames, preset, real_sampling, fake_sampling)
        if found is None:
            return fid
        found = replace(
            found, values=found.values | fid.values, protocols=found.protocols | fid.protocols
        )
    return found


def samplings(config: EvaluateConfig, preset: FvdPreset) -> tuple[ClipSampling, ClipSampling]:
    """Clips of real and of generated videos: the preset's, with what the config changes."""
    chosen = config.sampling
    changes: dict[str, Any] = {
        name: value
        for name in ("frames", "stride", "clips", "step", "start")
        if (value := getattr(chosen, name)) is not None
    }
    changes |= {"short": chosen.short_videos, "seed": config.seed}
    return replace(preset.real_sampling, **changes), replace(preset.sampling, **changes)


def device_name(config: EvaluateConfig) -> str:
    """Device of the networks."""
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device


def _compare(
    config: EvaluateConfig,
    processes: Processes,
    extractor: FeatureExtractor,
    preset: FvdPreset,
    real_sampling: ClipSampling,
    fake_sampling: ClipSampling,
) -> Distances:
    assert config.real is not None and config.fake is not None
    real_source = feature_source(extractor, preset, real_sampling)
    if config.real.suffix == ".npz":
        statistics, source = load_statistics(config.real)
        real_source.check_same(source, config.real)
        real = Side(config.real, statistics, [], {}, [], [], [])
    else:
        real = _read_side(config, processes, config.real, extractor, preset, real_sampling, "real")
    fake = _read_side(config, processes, config.fake, extractor, preset, fake_sampling, "generated")
    of_frames = isinstance(extractor, FrameExtractor)
    if config.statistics is not None and processes.is_main and not of_frames:
        assert not isinstance(real.features, FeatureStatistics)
        save_statistics(config.statistics, FeatureStatistics.of(real.features), real_source)
    values = _distances(config, extractor, preset, real, fake)
    protocol = {
        "preset": preset.name,
        "source": preset.source,
        "real_clips": asdict(real_sampling),
        "frames": fake_sampling.frames,
        "stride": fake_sampling.stride,
        "clips_per_video": fake_sampling.clips,
        "start": fake_sampling.start,
        "fps": {"real": real.fps, "fake": fake.fps},
        "resize": None if of_frames else preset.resize,
        "preprocessing": extractor.preprocessing,
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "precision": config.precision,
    }
    return Distances(values, dict.fromkeys(values, protocol), real, fake)


def _distances(
    config: EvaluateConfig,
    extractor: FeatureExtractor,
    preset: FvdPreset,
    real: Side,
    fake: Side,
) -> dict[str, VideoDistance]:
    assert not isinstance(fake.features, FeatureStatistics)
    common: dict[str, Any] = {"preset": preset, "seed": config.seed}
    if isinstance(extractor, FrameExtractor):
        name = f"FID-{extractor.name}"
        found = frechet_of_features(
            real.features, fake.features, name=name, draws=config.draws, **common
        )
        return {"fid": found}
    values: dict[str, VideoDistance] = {}
    if config.asked(("fvd",)):
        name = distance_name("FVD", extractor)
        values["fvd"] = frechet_of_features(
            real.features, fake.features, name=name, draws=config.draws, **common
        )
    if isinstance(real.features, FeatureStatistics):
        return values  # `check_evaluation` refuses the others
    if config.asked(("kvd",)):
        name = distance_name("KVD", extractor)
        values["kvd"] = kernel_of_features(
            real.features, fake.features, name=name, draws=config.draws, **common
        )
    if config.asked(("fvd_infinity",)):
        name = distance_name("FVD-infinity", extractor)
        values["fvd_infinity"] = infinity_of_features(
            real.features, fake.features, name=name, **common
        )
    return values


def _read_side(
    config: EvaluateConfig,
    processes: Processes,
    folder: Path,
    extractor: FeatureExtractor,
    preset: FvdPreset,
    sampling: ClipSampling,
    title: str,
) -> Side:
    cache = (config.cache or cache_folder() / "features") if config.use_cache else None
    batch = config.batch_size or (CUDA_BATCH if device_name(config) == "cuda" else 1)
    source = feature_source(extractor, preset, sampling)
    reader = FeatureReader(extractor, sampling, source, cache, batch)
    results = processes.map(reader.read, list(find_clips(folder).items()), f"{title} features")
    failures = [result for result in results.values() if isinstance(result, Failure)]
    videos = {name: result for name, result in results.items() if not isinstance(result, Failure)}
    if not videos:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise UserError(f"{folder}: no clip can be used: {failures[0].reason}{more}")
    sizes = Counter(f"{video.size[0]}x{video.size[1]}" for video in videos.values())
    return Side(
        path=folder,
        features=np.concatenate([video.features for video in videos.values()]),
        names=[name for name, video in videos.items() for _ in range(len(video.features))],
        sizes=dict(sizes.most_common()),
        fps=sorted({video.fps for video in videos.values() if video.fps is not None}),
        failures=failures,
        warnings=_side_warnings(title, videos, sizes),
    )


def _side_warnings(
    title: str, videos: Mapping[str, VideoFeatures], sizes: Mapping[str, int]
) -> list[str]:
    warnings = []
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({count})" for size, count in list(sizes.items())[:3])
        warnings.append(f"{title} clips have {len(sizes)} sizes: {found}; each is resized alone")
    padded = [name for name, video in videos.items() if video.padded]
    if padded:
        warnings.append(f"{len(padded)} {title} clips were padded, as {padded[0]} was")
    return warnings
