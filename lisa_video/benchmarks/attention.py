"""What a training step costs by attention kernel, against frames and resolution.

Kernels take turns in one run on the same networks and inputs; each one's memory is that of a
process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import cast

import torch

from lisa_video.attention import usable_kernels, use_attention
from lisa_video.attention_config import AttentionChoice
from lisa_video.backbones.base import VideoBackbone
from lisa_video.benchmarks.config import AttentionBenchmarkConfig, StepBenchmarkConfig
from lisa_video.benchmarks.measure import chosen_device, in_fresh_processes, interleaved_medians
from lisa_video.benchmarks.step import build_step, load_on_device, measure_peak_mb
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.setup import DTYPES


@dataclass(frozen=True)
class KernelCost:
    """Of one kernel at one length and size."""

    kernel: str
    frames: int
    width: int
    height: int
    seconds: float
    """Median of a training step."""
    peak_mb: float
    """MiB, as `hardware.peak_memory_mb` counts it."""


def check(config: AttentionBenchmarkConfig) -> None:
    """Raises UserError for the output file, the device, a kernel, the frames or a size."""
    if config.json is not None:
        check_new_file(config.json)
    backbone = load_on_device(_step_config(config, config.frames[0], config.sizes[0]))
    for frames in config.frames:
        backbone.check_frames(frames)
    for size in config.sizes:
        backbone.check_size(size)
    _kernels(config, backbone)


def run(config: AttentionBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    device = chosen_device(config.device)
    print(format_costs(costs))
    print(
        f"plain training step, {config.batch_size} clips, mixed_precision={config.mixed_precision}, "
        f"on {device.type}; medians of {config.repeats} steps"
    )
    if config.json is not None:
        rows = [vars(cost) for cost in costs]
        details = {"device": device.type, "versions": package_versions("torch", "diffusers")}
        write_json(config.json, {"costs": rows} | details)


def measure_costs(config: AttentionBenchmarkConfig) -> list[KernelCost]:
    """Every kernel at every size, for every number of frames."""
    if config.threads:
        torch.set_num_threads(config.threads)
    first = _step_config(config, config.frames[0], config.sizes[0])
    kernels = _kernels(config, load_on_device(first))
    costs = []
    for frames, size in product(config.frames, config.sizes):
        settings = _step_config(config, frames, size)
        # A backbone each: its attention modules hold the kernel.
        steps: dict[str, Callable[[], object]] = {
            name: build_step(by_kernel, load_on_device(by_kernel), "plain")
            for name in kernels
            for by_kernel in [_by_kernel(settings, name)]
        }
        device = chosen_device(config.device)
        seconds = interleaved_medians(steps, config.repeats, config.warm_up, device)
        del steps  # before other processes want the device's memory
        peak = in_fresh_processes(partial(_peak_mb, settings), kernels, __name__)
        costs += [KernelCost(name, frames, *size, seconds[name], peak[name]) for name in kernels]
    return costs


def format_costs(costs: Sequence[KernelCost]) -> str:
    """The table; times also against the first kernel of the same length and size."""
    firsts: dict[tuple[int, int, int], KernelCost] = {}
    rows = []
    for cost in costs:
        first = firsts.setdefault((cost.frames, cost.width, cost.height), cost)
        rows.append(
            [
                str(cost.frames),
                f"{cost.width}x{cost.height}",
                cost.kernel,
                f"{cost.seconds:.4f}",
                f"{cost.seconds / first.seconds:.2f}",
                f"{cost.peak_mb:.0f}",
            ]
        )
    return format_table(["frames", "size", "kernel", "seconds", "ratio", "peak MiB"], rows)


def _kernels(config: AttentionBenchmarkConfig, backbone: VideoBackbone) -> list[AttentionChoice]:
    """Those asked for, or all that run; UserError for one that does not."""
    networks, dtype = [backbone.main_network], DTYPES[config.mixed_precision]
    if not config.kernels:
        return usable_kernels(networks, dtype, training=True)
    for name in config.kernels:
        use_attention(name, networks, dtype, training=True)
    return list(dict.fromkeys(config.kernels))


def _step_config(
    config: AttentionBenchmarkConfig, frames: int, size: tuple[int, int]
) -> StepBenchmarkConfig:
    shared = ("backbone", "batch_size", "mixed_precision", "device", "threads", "seed")
    values = {name: getattr(config, name) for name in shared}
    return StepBenchmarkConfig(frames=frames, size=size, **values)


def _peak_mb(settings: StepBenchmarkConfig, kernel: str) -> float:
    return measure_peak_mb(_by_kernel(settings, kernel), "plain")


def _by_kernel(settings: StepBenchmarkConfig, kernel: str) -> StepBenchmarkConfig:
    return replace(settings, attention=cast(AttentionChoice, kernel))
