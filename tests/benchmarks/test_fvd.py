"""The FVD benchmark on small sizes: what it compares, and what it writes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.benchmarks.config import FvdBenchmarkConfig
from lisa_video.benchmarks.fvd import VARIANTS, check, run, time_frechet
from lisa_video.errors import UserError


@pytest.mark.parametrize(("count", "dimension"), [(10, 30), (60, 20)])
def test_both_ways_to_the_distance_agree(count: int, dimension: int) -> None:
    found = time_frechet(count, dimension, repeats=1, seed=0)
    assert found.difference < (1e-6 if count > dimension else 1e-3)
    assert found.ratio == found.sqrtm_seconds / found.seconds


def test_tables_and_json_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = FvdBenchmarkConfig(
        frames=9,
        repeats=1,
        warm_up=0,
        value_clips=2,
        samples=[20],
        dimensions=[10, 30],
        frechet_repeats=1,
        device="cpu",
        json=tmp_path / "fvd.json",
    )
    run(config)
    table = capsys.readouterr().out
    assert "bfloat16 channels last" in table and "N = 20, D = 30" in table
    result = json.loads((tmp_path / "fvd.json").read_text())
    assert set(result["clips_per_second"]) == set(VARIANTS)
    assert result["value_errors"]["float32"] == 0
    assert result["value_errors"]["float32_channels_last"] < 1e-4
    assert 0 < result["value_errors"]["bfloat16_channels_last"] < 0.2
    assert [(case["n"], case["d"]) for case in result["frechet"]] == [(20, 10), (20, 30)]
    with pytest.raises(UserError, match="exists already"):
        check(config)


def test_checks_before_the_work() -> None:
    with pytest.raises(UserError, match="absent: no such network"):
        check(FvdBenchmarkConfig(network="absent"))
    for change, message in (
        ({"frames": 8}, "frames=8: I3D needs at least 9"),
        ({"repeats": 0}, "repeats=0: must be at least 1"),
        ({"samples": [1]}, "must be at least 2"),
        ({"warm_up": -1}, "warm_up=-1: must be at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            replace(FvdBenchmarkConfig(), **change)
