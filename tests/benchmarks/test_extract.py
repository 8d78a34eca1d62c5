"""The benchmark of extraction measures whole jobs, and refuses to compare empty ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.benchmarks.data_config import ExtractBenchmarkConfig
from lisa_video.benchmarks.extract import ExtractTimes, check, measure
from lisa_video.errors import UserError


def test_the_speedup_is_that_of_the_middle_round() -> None:
    times = ExtractTimes(100, one=[10, 12, 30], several=[5, 4, 20])
    assert times.speedup() == 2
    assert times.to_json()["speedup"] == 2


def test_what_is_wrong_is_said_first(tmp_path: Path) -> None:
    config = ExtractBenchmarkConfig(video=tmp_path / "none.mp4")
    with pytest.raises(UserError, match="no such video"):
        check(config)
    with pytest.raises(UserError, match="unknown pose detector"):
        check(replace(config, detector="eyes"))
    with pytest.raises(UserError, match="workers=1: must be at least 2"):
        ExtractBenchmarkConfig(workers=1)


@pytest.mark.slow
def test_both_numbers_of_workers_do_the_whole_job() -> None:
    times = measure(ExtractBenchmarkConfig(videos=2, repeats=1))
    assert times.frames == 240
    assert min(times.one + times.several) > 0
