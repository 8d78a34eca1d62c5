"""What FVD costs: I3D's passes by precision and memory layout, and the Fréchet distance against the
matrix root that other implementations take.

Shapes: B batch, T frames, N samples, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lisa_video.benchmarks.config import FvdBenchmarkConfig
from lisa_video.benchmarks.measure import chosen_device, interleaved_medians
from lisa_video.errors import UserError
from lisa_video.metrics.extractors import I3D_NAME
from lisa_video.metrics.frechet import sample_distance
from lisa_video.metrics.i3d import I3D, SIDE
from lisa_video.metrics.i3d_weights import load_i3d, published_weights
from lisa_video.reports import check_new_file, format_table, package_versions, write_json

Variant = Literal["float32", "float32_channels_last", "bfloat16_channels_last"]
VARIANTS: tuple[Variant, ...] = ("float32", "float32_channels_last", "bfloat16_channels_last")
HOLDS = 0.01
"""Share of the float32 value that another precision may be off by."""


@dataclass(frozen=True)
class FrechetTime:
    """One size of the Fréchet distance."""

    samples: int
    dimension: int
    seconds: float
    sqrtm_seconds: float
    difference: float
    """Between both values, as a share of sqrtm's."""

    @property
    def ratio(self) -> float:
        """How many times longer the matrix root takes."""
        return self.sqrtm_seconds / self.seconds


@dataclass(frozen=True)
class FvdCosts:
    """Everything measured."""

    clips_per_second: dict[str, float]
    """By variant."""
    value_errors: dict[str, float]
    """By variant: how far FVD is from that of float32, as a share of it."""
    frechet: list[FrechetTime]

    def to_json(self) -> dict[str, Any]:
        return {
            "clips_per_second": self.clips_per_second,
            "value_errors": self.value_errors,
            "bfloat16_holds": self.value_errors["bfloat16_channels_last"] <= HOLDS,
            "frechet": [
                {
                    "n": case.samples,
                    "d": case.dimension,
                    "seconds": case.seconds,
                    "sqrtm_seconds": case.sqrtm_seconds,
                    "ratio": case.ratio,
                    "difference": case.difference,
                }
                for case in self.frechet
            ],
        }


def check(config: FvdBenchmarkConfig) -> None:
    """Raises UserError for the output file, the device or the network."""
    if config.json is not None:
        check_new_file(config.json)
    chosen_device(config.device)
    if config.network != I3D_NAME and not Path(config.network).is_file():
        raise UserError(f"{config.network}: no such network")


def run(config: FvdBenchmarkConfig) -> None:
    """Measure, print the tables and write the JSON file."""
    costs = measure_costs(config)
    print(format_costs(costs))
    if config.json is not None:
        details = {
            "device": chosen_device(config.device).type,
            "versions": package_versions("torch", "scipy"),
        }
        write_json(config.json, costs.to_json() | details)


def measure_costs(config: FvdBenchmarkConfig) -> FvdCosts:
    """The passes first, then the distances."""
    if config.threads:
        torch.set_num_threads(config.threads)
    path = published_weights() if config.network == I3D_NAME else Path(config.network)
    device = chosen_device(config.device)
    networks = {variant: _network(path, variant, device) for variant in VARIANTS}
    generator = torch.Generator().manual_seed(config.seed)
    clips = torch.rand((config.batch_size, 3, config.frames, SIDE, SIDE), generator=generator)
    steps: dict[str, Callable[[], object]] = {
        variant: _pass(network, clips.to(device) * 2 - 1) for variant, network in networks.items()
    }
    seconds = interleaved_medians(steps, config.repeats, config.warm_up, device)
    return FvdCosts(
        {variant: config.batch_size / seconds[variant] for variant in VARIANTS},
        _value_errors(config, networks, device),
        [
            time_frechet(count, dimension, config.frechet_repeats, config.seed)
            for dimension in config.dimensions
            for count in config.samples
        ],
    )


def time_frechet(count: int, dimension: int, repeats: int, seed: int) -> FrechetTime:
    """Both ways to the distance of two samples of correlated features (N, D), with one answer."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dimension, dimension)) / np.sqrt(dimension)
    first, second = (random.normal(shift, size=(count, dimension)) @ mixing for shift in (0.0, 0.1))
    timed = [_timed(lambda: sample_distance(first, second, ddof=1)) for _ in range(repeats)]
    by_sqrtm, sqrtm_seconds = _timed(lambda: _distance_by_sqrtm(first, second))
    return FrechetTime(
        count,
        dimension,
        float(np.median([seconds for _, seconds in timed])),
        sqrtm_seconds,
        abs(timed[0][0] - by_sqrtm) / by_sqrtm,
    )


def format_costs(costs: FvdCosts) -> str:
    """Both tables."""
    passes = [
        [
            variant.replace("_", " "),
            f"{costs.clips_per_second[variant]:.3f}",
            f"{100 * costs.value_errors[variant]:.3f} %",
        ]
        for variant in VARIANTS
    ]
    distances = [
        [
            f"N = {case.samples}, D = {case.dimension}",
            f"{case.seconds:.4f}",
            f"{case.sqrtm_seconds:.3f}",
            f"{case.ratio:.0f}",
            f"{case.difference:.1e}",
        ]
        for case in costs.frechet
    ]
    return "\n\n".join(
        [
            format_table(["I3D", "clips/s", "FVD off by"], passes),
            format_table(["Fréchet distance", "seconds", "sqrtm", "times", "apart"], distances),
        ]
    )


def _value_errors(
    config: FvdBenchmarkConfig, networks: dict[Variant, I3D], device: torch.device
) -> dict[str, float]:
    sides = [_moving_clips(config, seed) for seed in (config.seed, config.seed + 1)]
    values: dict[str, float] = {}
    for variant in tqdm(VARIANTS, desc="value", unit="variant", disable=None):
        features = [
            torch.cat([_pass(networks[variant], clip[None].to(device))() for clip in clips])
            for clips in sides
        ]
        real, fake = (side.float().cpu().numpy() for side in features)
        values[variant] = sample_distance(real, fake, ddof=1)
    exact = values["float32"]
    return {variant: abs(value - exact) / exact for variant, value in values.items()}


def _moving_clips(config: FvdBenchmarkConfig, seed: int) -> Tensor:
    """(N, 3, T, H, W) in [-1, 1]: smooth patterns that drift, each its own way."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    clips = []
    for _ in range(config.value_clips):
        waves = random.normal(0, 12, (3, 2))
        phases, speeds = random.uniform(0, 6, (3, 1)), random.normal(0, 0.5, (3, 1))
        time_axis = phases + speeds * np.arange(config.frames)  # (3, T)
        places = waves[:, 0, None, None] * x + waves[:, 1, None, None] * y  # (3, H, W)
        clips.append(np.sin(places[:, None] + time_axis[..., None, None]))
    return torch.from_numpy(np.stack(clips).astype(np.float32))


def _network(path: Path, variant: Variant, device: torch.device) -> I3D:
    network = load_i3d(path, pool_frames=2).to(device)
    if variant != "float32":
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if variant == "bfloat16_channels_last":
        network.to_bfloat16()
    return network


def _pass(network: I3D, clips: Tensor) -> Callable[[], Tensor]:
    inputs = clips.to(network.Conv3d_1a_7x7.weight.dtype)

    @torch.inference_mode()
    def step() -> Tensor:
        logits: Tensor = network(inputs)
        return logits

    return step


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    """Result and seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _distance_by_sqrtm(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """As in StyleGAN-V's code: the trace of the root of the product."""
    covariances = [np.cov(sample, rowvar=False) for sample in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    apart = first.mean(0) - second.mean(0)
    return float(apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root).real)
