"""What a training step needs: estimated and measured, and with every economy against none.

All are real trainings of two steps, each in a process of its own, on a small set that is made for
them. `naive` is the loop that one writes first: the backbone in float32 with VAE and text encoder
beside it, clips encoded in every step, all activations kept, the prior by a second full forward.
`economical` has all that saves memory: a cache, bfloat16, gradient checkpointing, the shared pass.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from lisa_video.backbones.base import VideoBackbone
from lisa_video.benchmarks.config import MemoryBenchmarkConfig
from lisa_video.benchmarks.data_config import LoaderBenchmarkConfig
from lisa_video.benchmarks.loader import write_noise_clips
from lisa_video.benchmarks.measure import in_fresh_processes, quiet_profiler
from lisa_video.benchmarks.step import with_two_forwards
from lisa_video.caching import job as caching
from lisa_video.caching.config import CacheConfig
from lisa_video.errors import UserError
from lisa_video.hardware import MIB
from lisa_video.memory.estimate import estimate_memory
from lisa_video.memory.measured import training_peak
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.config import AlignmentConfig, DataConfig, ProbeConfig, TrainConfig
from lisa_video.training.setup import open_backbone

STEPS = 2
"""The optimizer's moments exist from the first step on: the second holds all that any later does."""
_ECONOMY = ("naive", "economical")


@dataclass(frozen=True)
class MemoryCosts:
    """Peaks in bytes."""

    estimated: dict[str, int]
    """By variant of `variants`."""
    measured: dict[str, int]
    """By the same, and by "naive" and "economical"."""

    def error_pct(self, variant: str) -> float:
        """Of the estimate, in percent of what was measured."""
        return 100 * (self.estimated[variant] / self.measured[variant] - 1)

    @property
    def saved(self) -> float:
        """How many times as much the naive training needs as the economical one."""
        return self.measured["naive"] / self.measured["economical"]

    def to_json(self) -> dict[str, Any]:
        """Peaks in MiB."""
        rows = {
            name: {
                "estimated_mb": self.estimated[name] / MIB,
                "measured_mb": self.measured[name] / MIB,
                "error_pct": self.error_pct(name),
            }
            for name in self.estimated
        }
        economy = {f"{name}_mb": self.measured[name] / MIB for name in _ECONOMY}
        return {"sizes": rows, **economy, "naive_to_economical": self.saved}


def check(config: MemoryBenchmarkConfig) -> None:
    """Raises UserError for the output file, the backbone or a size."""
    if config.json is not None:
        check_new_file(config.json)
    backbone = open_backbone(config.backbone, encoders_later=True)
    for frames, size, _ in config.sizes:
        backbone.check_frames(frames, "sizes")
        backbone.check_size((size, size), "sizes")
    if config.tap not in backbone.injection_points:
        raise UserError(f"tap={config.tap}: known points: {', '.join(backbone.injection_points)}")


def run(config: MemoryBenchmarkConfig) -> None:
    """Measure, print the tables and write the JSON file."""
    costs = measure_costs(config)
    print(format_costs(costs))
    if config.json is not None:
        write_json(config.json, costs.to_json() | {"versions": package_versions("torch")})


def variants(config: MemoryBenchmarkConfig, folder: Path) -> dict[str, TrainConfig]:
    """A training for each size, without and with gradient checkpointing."""
    return {
        f"{size[0]}x{size[1]}x{size[1]}, {size[2]} clips{', checkpointing' if saved else ''}": (
            _training(config, folder, size, gradient_checkpointing=saved)
        )
        for size in config.sizes
        for saved in (False, True)
    }


def measure_costs(config: MemoryBenchmarkConfig) -> MemoryCosts:
    """Each training in a process of its own."""
    quiet_profiler()
    with tempfile.TemporaryDirectory(prefix="lisa_video_") as name:
        folder = Path(name)
        for size in config.sizes:
            _write_set(config, folder, size)
        trainings = variants(config, folder)
        estimated = {
            name: estimate_memory(training, on_cuda=False).peak
            for name, training in trainings.items()
        }
        largest = config.sizes[-1]
        naive = replace(_training(config, folder, largest), output=folder / "naive")
        economical = _economical(naive, folder)
        with redirect_stdout(StringIO()):
            caching.run(CacheConfig(**vars(economical)))
        trainings |= {"naive": naive, "economical": economical}
        measured = in_fresh_processes(
            partial(measure_peak, config, trainings), list(trainings), __name__
        )
    return MemoryCosts(estimated, {name: int(value) for name, value in measured.items()})


def measure_peak(
    config: MemoryBenchmarkConfig, trainings: dict[str, TrainConfig], name: str
) -> float:
    """Peak of one training in bytes, in this process, which has done nothing before."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with _cpu_only(), redirect_stdout(StringIO()):
        prepare = with_two_forwards if name == "naive" else _as_it_is
        return float(training_peak(trainings[name], torch.device("cpu"), prepare))


def format_costs(costs: MemoryCosts) -> str:
    """Both tables."""
    rows = [
        [
            name,
            f"{costs.estimated[name] / MIB:.0f}",
            f"{costs.measured[name] / MIB:.0f}",
            f"{costs.error_pct(name):+.1f} %",
        ]
        for name in costs.estimated
    ]
    estimates = format_table(["LISA training", "estimated MiB", "measured MiB", "error"], rows)
    economy = format_table(
        ["largest of these", "measured MiB", ""],
        [
            ["naive", f"{costs.measured['naive'] / MIB:.0f}", f"{costs.saved:.1f}"],
            ["everything on", f"{costs.measured['economical'] / MIB:.0f}", "1.0"],
        ],
    )
    return f"{estimates}\n\n{economy}"


def _as_it_is(backbone: VideoBackbone) -> VideoBackbone:
    return backbone


def _economical(config: TrainConfig, folder: Path) -> TrainConfig:
    return replace(
        config,
        data=replace(config.data, views=1, cache=folder / "cache"),
        output=folder / "economical",
        mixed_precision="bf16",
        gradient_checkpointing=True,
    )


def _training(
    config: MemoryBenchmarkConfig,
    folder: Path,
    size: tuple[int, int, int],
    *,
    gradient_checkpointing: bool = False,
) -> TrainConfig:
    frames, side, clips = size
    name = "_".join(map(str, size))
    return TrainConfig(
        config.backbone,
        DataConfig(folder / f"set_{name}", frames=frames, size=(side, side), batch_size=clips),
        folder / f"run_{name}_{gradient_checkpointing}",
        seed=config.seed,
        steps=STEPS,
        alignment=AlignmentConfig(tap=config.tap),
        probe=ProbeConfig(every=0),
        gradient_checkpointing=gradient_checkpointing,
    )


def _write_set(config: MemoryBenchmarkConfig, folder: Path, size: tuple[int, int, int]) -> None:
    frames, side, clips = size
    settings = LoaderBenchmarkConfig(
        clips=clips, frames=frames, size=(side, side), seed=config.seed
    )
    write_noise_clips(settings, folder / f"set_{'_'.join(map(str, size))}")


@contextmanager
def _cpu_only() -> Iterator[None]:
    """accelerate takes a GPU where there is one."""
    from accelerate.state import AcceleratorState, PartialState

    PartialState(cpu=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
