"""Fréchet video distance, and its relatives, of clips or of their features.

Shapes: N clips, T frames, H W pixels, D features.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.metrics.extractors import (
    I3D_NAME,
    FeatureExtractor,
    build_extractor,
    distance_name,
)
from lisa_video.metrics.frechet import covariance_factor, distance_of_factors, sample_distance
from lisa_video.metrics.kernel import kernel_distance
from lisa_video.metrics.presets import FvdPreset, fvd_preset
from lisa_video.metrics.sampling import ClipSampling
from lisa_video.metrics.statistics import FeatureSource, FeatureStatistics
from lisa_video.metrics.uncertainty import (
    Extrapolation,
    Interval,
    extrapolate,
    half_sample_interval,
)

FEW_VIDEOS = 256
"""Below this many a Fréchet distance is mostly its own bias."""

Features = NDArray[np.floating]


@dataclass(frozen=True)
class VideoDistance:
    """A distance between real and generated clips, with what is needed to repeat it."""

    name: str
    """"FVD", "KVD" or "FVD-infinity" of the published I3D; "FD-..." of another network."""
    value: float
    interval: Interval | None
    """None where it was not asked for, or cannot be had."""
    real: int
    """Clips."""
    fake: int
    dimension: int
    """Features per clip."""
    preset: str
    ddof: int | None
    """Covariances are divided by N - ddof; None where there are none."""
    warnings: list[str] = field(default_factory=list)
    """What keeps the value from being compared with others."""
    extrapolation: Extrapolation | None = None
    """Of FVD-infinity."""


def fvd_of_clips(
    real: NDArray[np.uint8],
    fake: NDArray[np.uint8],
    *,
    preset: str = "stylegan-v",
    extractor: FeatureExtractor | None = None,
    batch_size: int = 8,
    draws: int = 0,
    seed: int = 0,
) -> VideoDistance:
    """FVD of two arrays of clips, all frames of each as they are.

    Args:
        real: uint8 (N, T, H, W, 3), RGB; N at least 2, T at least 9 for I3D.
        fake: uint8 (M, T, H', W', 3).
        preset: name of the protocol: resizing, pooling and ddof.
        extractor: made by `build_extractor` for this preset; without it the published I3D, which
            is fetched once.
        batch_size: clips at a time.
        draws: half samples for an interval; 0 leaves it out.
        seed: of these draws.

    Raises:
        UserError: unknown preset, one clip, clips too short, or of different lengths.
    """
    chosen = fvd_preset(preset)
    network = extractor or build_extractor(I3D_NAME, chosen)
    if real.shape[1] != fake.shape[1]:
        raise UserError(f"real clips have {real.shape[1]} frames, generated {fake.shape[1]}")
    features = [features_of_clips(clips, network, batch_size) for clips in (real, fake)]
    name = distance_name("FVD", network)
    return frechet_of_features(*features, preset=chosen, name=name, draws=draws, seed=seed)


def features_of_clips(
    clips: NDArray[np.uint8], extractor: FeatureExtractor, batch_size: int
) -> NDArray[np.float32]:
    """uint8 (N, T, H, W, 3) -> float32 (N, D); the last batch may be smaller.

    Raises UserError where the clips are too short for the network.
    """
    if clips.shape[1] < extractor.min_frames:
        raise UserError(
            f"{extractor.name} needs clips of {extractor.min_frames} frames, they have "
            f"{clips.shape[1]}"
        )
    batches = range(0, len(clips), batch_size)
    return np.concatenate([extractor(clips[start : start + batch_size]) for start in batches])


def frechet_of_features(
    real: Features | FeatureStatistics,
    fake: Features,
    *,
    preset: FvdPreset,
    name: str,
    draws: int = 0,
    seed: int = 0,
) -> VideoDistance:
    """Fréchet distance of features (N, D) and (M, D), or of kept statistics and features.

    Raises UserError with fewer than 2 clips on a side.
    """
    distance = partial(sample_distance, ddof=preset.ddof)
    warnings = _size_warnings(_count(real), len(fake), fake.shape[1])
    interval = None
    if isinstance(real, FeatureStatistics):
        value = _distance_to_statistics(real, fake, preset.ddof)
        if draws:
            warnings.append("no interval: it needs the real clips, not only their statistics")
    else:
        value = distance(real, fake)
        if draws and min(len(real), len(fake)) >= 4:
            interval = half_sample_interval(
                distance, real, fake, value=value, draws=draws, seed=seed
            )
    return VideoDistance(
        name, value, interval, _count(real), len(fake), fake.shape[1], preset.name, preset.ddof,
        warnings,
    )  # fmt: skip


def kernel_of_features(
    real: Features, fake: Features, *, preset: FvdPreset, name: str, draws: int = 0, seed: int = 0
) -> VideoDistance:
    """Kernel distance of features; errors as in `frechet_of_features`."""
    _size_warnings(len(real), len(fake), fake.shape[1])
    value = kernel_distance(real, fake)
    interval = None
    if draws and min(len(real), len(fake)) >= 4:
        interval = half_sample_interval(
            kernel_distance, real, fake, value=value, draws=draws, seed=seed
        )
    return VideoDistance(
        name, value, interval, len(real), len(fake), fake.shape[1], preset.name, None
    )


def infinity_of_features(
    real: Features, fake: Features, *, preset: FvdPreset, name: str, seed: int = 0
) -> VideoDistance:
    """Fréchet distance extrapolated to infinitely many clips; errors as in `extrapolate`."""
    line = extrapolate(partial(sample_distance, ddof=preset.ddof), real, fake, seed=seed)
    return VideoDistance(
        name, line.limit, None, len(real), len(fake), fake.shape[1], preset.name, preset.ddof,
        extrapolation=line,
    )  # fmt: skip


def feature_source(
    extractor: FeatureExtractor, preset: FvdPreset, sampling: ClipSampling
) -> FeatureSource:
    """What must be equal for features to be compared, or taken from a cache."""
    if sampling.start != "random":
        sampling = replace(sampling, seed=0)  # it changes nothing then
    described = json.dumps(
        {"network": extractor.preprocessing, "sampling": asdict(sampling)}, sort_keys=True
    )
    digest = hashlib.sha256(described.encode()).hexdigest()
    return FeatureSource(extractor.name, extractor.sha256, preset.name, digest)


def _distance_to_statistics(real: FeatureStatistics, fake: Features, ddof: int) -> float:
    if len(real.mean) != fake.shape[1]:
        raise UserError(f"statistics of {len(real.mean)} features, clips have {fake.shape[1]}")
    other = FeatureStatistics.of(fake)
    factors = [covariance_factor(statistics.covariance(ddof)) for statistics in (real, other)]
    return distance_of_factors(real.mean, factors[0], other.mean, factors[1])


def _count(sample: Features | FeatureStatistics) -> int:
    return sample.count if isinstance(sample, FeatureStatistics) else len(sample)


def _size_warnings(real: int, fake: int, dimension: int) -> list[str]:
    for count, kind in ((real, "real"), (fake, "generated")):
        if count < 2:
            raise UserError(f"{count} {kind} clip: a distance of distributions needs at least 2")
    smallest = min(real, fake)
    warnings = []
    if smallest < FEW_VIDEOS:
        warnings.append(
            f"only {smallest} clips on one side: below {FEW_VIDEOS} the value is biased upward, "
            "compare it at equal numbers only"
        )
    if smallest <= dimension:
        warnings.append(
            f"N = {smallest} does not exceed D = {dimension}: the covariance is singular"
        )
    return warnings
