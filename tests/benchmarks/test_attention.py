import json
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.benchmarks.attention import KernelCost, check, format_costs, run
from lisa_video.benchmarks.config import AttentionBenchmarkConfig
from lisa_video.errors import UserError
from lisa_video.training.config import BackboneConfig
from tests.tiny_wan import TOKENS, tiny_wan_checkpoint


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AttentionBenchmarkConfig:
    path = tiny_wan_checkpoint(tmp_path_factory.mktemp("attention") / "wan")
    return AttentionBenchmarkConfig(
        backbone=BackboneConfig(str(path), kind="wan", text_tokens=TOKENS),
        frames=[5],
        sizes=[(16, 16), (24, 16)],
        repeats=1,
        warm_up=0,
    )


def test_every_kernel_at_every_size(config: AttentionBenchmarkConfig, tmp_path: Path) -> None:
    result = tmp_path / "attention.json"
    run(replace(config, json=result))
    rows = json.loads(result.read_text())["costs"]
    assert {(row["kernel"], row["width"]) for row in rows} == {
        (kernel, width) for kernel in ("sdpa", "flash", "math") for width in (16, 24)
    }
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 for row in rows)


def test_ratios_are_to_the_first_kernel_of_the_same_clip() -> None:
    costs = [
        KernelCost("sdpa", 8, 64, 64, seconds=2.0, peak_mb=1),
        KernelCost("math", 8, 64, 64, seconds=3.0, peak_mb=1),
        KernelCost("sdpa", 16, 64, 64, seconds=5.0, peak_mb=1),
        KernelCost("math", 16, 64, 64, seconds=20.0, peak_mb=1),
    ]
    ratios = [row.split()[4] for row in format_costs(costs).splitlines()[1:]]
    assert ratios == ["1.00", "1.50", "1.00", "4.00"]


def test_what_cannot_be_measured_is_refused(config: AttentionBenchmarkConfig) -> None:
    with pytest.raises(UserError, match="frames=6: "):
        check(replace(config, frames=[5, 6]))
    with pytest.raises(UserError, match="attention=xformers"):
        check(replace(config, kernels=["xformers"]))
    with pytest.raises(UserError, match="auto is no kernel"):
        replace(config, kernels=["auto"])
