"""The benchmark of memory, small: three trainings of each kind, and what they say."""

from pathlib import Path

import pytest

from lisa_video.benchmarks.config import MemoryBenchmarkConfig
from lisa_video.benchmarks.memory import check, format_costs, measure_costs
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig
from tests.tiny import tiny_backbone, tiny_checkpoint

MIB = 2**20


@pytest.mark.slow
def test_estimates_and_economy(tmp_path: Path) -> None:
    backbone = tiny_checkpoint(tmp_path / "backbone", tiny_backbone(block_out_channels=(32, 64)))
    config = MemoryBenchmarkConfig(
        BackboneConfig(str(backbone)), tap="down_1", sizes=[(4, 32, 2), (4, 64, 2)], threads=1
    )
    check(config)
    costs = measure_costs(config)
    assert len(costs.estimated) == 4
    assert all(abs(costs.error_pct(name)) < 15 for name in costs.estimated), costs
    assert costs.saved > 1.5
    table = format_costs(costs)
    assert len(table.splitlines()) == 9
    values = costs.to_json()
    assert values["naive_mb"] == costs.measured["naive"] / MIB
    assert values["naive_to_economical"] == costs.saved


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    backbone = BackboneConfig(str(tiny_checkpoint(tmp_path / "backbone")))
    with pytest.raises(UserError, match="tap=down_9: known points: down_0"):
        check(MemoryBenchmarkConfig(backbone, tap="down_9", sizes=[(4, 16, 2)]))
    with pytest.raises(UserError, match="multiples of 4"):
        check(MemoryBenchmarkConfig(backbone, tap="down_1", sizes=[(4, 15, 2)]))
    with pytest.raises(UserError, match="at least 1"):
        MemoryBenchmarkConfig(sizes=[(4, 0, 2)])
