"""Benchmarks: what each costs, measured in one run, printed as a table and written as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lisa_video.benchmarks.config import (
    AttentionBenchmarkConfig,
    EconomyBenchmarkConfig,
    FvdBenchmarkConfig,
    MemoryBenchmarkConfig,
    ParametersBenchmarkConfig,
    StepBenchmarkConfig,
)
from lisa_video.benchmarks.data_config import (
    DecodeBenchmarkConfig,
    ExtractBenchmarkConfig,
    LoaderBenchmarkConfig,
    ManifestBenchmarkConfig,
)
from lisa_video.benchmarks.generation_config import (
    GenerationBenchmarkConfig,
    LongVideoBenchmarkConfig,
)


@dataclass(frozen=True)
class Benchmark:
    """One entry of the table; its module is imported when it runs."""

    config_class: type
    """Dataclass of its settings."""
    module: str
    """Module with `run(config)` and `check(config)`."""

    def function(self, name: str) -> Callable[[Any], None]:
        """`run` or `check`, imported when called."""
        return lambda config: getattr(import_module(self.module), name)(config)


BENCHMARKS = {
    "step": Benchmark(StepBenchmarkConfig, "lisa_video.benchmarks.step"),
    "economy": Benchmark(EconomyBenchmarkConfig, "lisa_video.benchmarks.economy"),
    "parameters": Benchmark(ParametersBenchmarkConfig, "lisa_video.benchmarks.parameters"),
    "attention": Benchmark(AttentionBenchmarkConfig, "lisa_video.benchmarks.attention"),
    "fvd": Benchmark(FvdBenchmarkConfig, "lisa_video.benchmarks.fvd"),
    "decode": Benchmark(DecodeBenchmarkConfig, "lisa_video.benchmarks.decode"),
    "extract": Benchmark(ExtractBenchmarkConfig, "lisa_video.benchmarks.extract"),
    "loader": Benchmark(LoaderBenchmarkConfig, "lisa_video.benchmarks.loader"),
    "memory": Benchmark(MemoryBenchmarkConfig, "lisa_video.benchmarks.memory"),
    "manifest": Benchmark(ManifestBenchmarkConfig, "lisa_video.benchmarks.manifest"),
    "generation": Benchmark(GenerationBenchmarkConfig, "lisa_video.benchmarks.generation"),
    "long_video": Benchmark(LongVideoBenchmarkConfig, "lisa_video.benchmarks.long_video"),
}
