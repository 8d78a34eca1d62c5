"""The loader benchmark on a tiny backbone: what it compares, and what it writes."""

import json
from pathlib import Path

from lisa_video.benchmarks.data_config import LoaderBenchmarkConfig
from lisa_video.benchmarks.loader import SOURCES, LoaderCosts, check, format_costs, run
from lisa_video.training.config import BackboneConfig
from tests.tiny import tiny_checkpoint


def test_it_measures_every_source_beside_a_step(tmp_path: Path) -> None:
    config = LoaderBenchmarkConfig(
        BackboneConfig(str(tiny_checkpoint(tmp_path / "backbone"))),
        tap="down_2",
        batch_size=1,
        frames=2,
        size=(16, 16),
        clips=2,
        repeats=1,
        warm_up=0,
        threads=1,
        json=tmp_path / "loader.json",
    )
    check(config)
    run(config)
    found = json.loads((tmp_path / "loader.json").read_text())
    for name in SOURCES:
        ratio = found[f"{name}_clips_per_s"] / found["step_clips_per_s"]
        assert abs(found[f"{name}_to_step"] / ratio - 1) < 1e-6


def test_ratios_are_those_of_clips() -> None:
    costs = LoaderCosts(4, {"cache": 0.1, "shards": 0.2, "video": 1.0, "step": 2.0})
    assert [costs.ratio(name) for name in SOURCES] == [20, 10, 2]
    assert [line.split()[-2:] for line in format_costs(costs).splitlines()[1:]] == [
        ["2.0", "1.0"],
        ["40.0", "20.0"],
        ["20.0", "10.0"],
        ["4.0", "2.0"],
    ]
