"""The benchmark of reading videos, on a tiny one: all ways give the same, and none is left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from lisa_video.benchmarks.data_config import DecodeBenchmarkConfig
from lisa_video.benchmarks.decode import BASE, absent_decoders, check, run, ways_to_read
from lisa_video.benchmarks.measure import paired_ratios
from lisa_video.errors import UserError
from tests.broken_videos import encode, moving_frames

WAYS = {BASE, "decord alone", "PyAV, guarded", "PyAV alone", "PyAV from the start"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    encode(path, moving_frames(), g="8", bf="2")
    return path


def expected_ways() -> set[str]:
    absent = absent_decoders()
    ways = {way for way in WAYS if "decord" not in way or "decord" not in absent}
    return ways if "torchcodec" in absent else {*ways, "torchcodec alone"}


def test_all_ways_give_the_same_frames(clip: Path) -> None:
    ways = ways_to_read(clip)
    assert set(ways) == expected_ways()
    right = ways["PyAV from the start"]([5, 6, 20])
    for read in ways.values():
        assert np.abs(read([5, 6, 20]).astype(int) - right).max() <= 2


def test_table_and_json_of_a_run(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DecodeBenchmarkConfig(
        videos=[clip],
        key_intervals=[6],
        window=4,
        windows=2,
        whole=1,
        json=tmp_path / "decode.json",
    )
    check(config)
    run(config)
    table = capsys.readouterr().out
    result = json.loads((tmp_path / "decode.json").read_text())
    assert {time["way"] for time in result["times"]} == expected_ways()
    assert len(result["times"]) == 2 * 2 * len(expected_ways())
    assert {time["key_interval"] for time in result["times"]} == {None, 6}
    assert all(time["ratio"] == 1 for time in result["times"] if time["way"] == BASE)
    for name, reason in result["absent"].items():
        assert f"{name} is not compared: {reason}" in table
    with pytest.raises(UserError, match="exists already"):
        check(config)


def test_ratios_are_those_of_rounds() -> None:
    ratios = paired_ratios({"slow": [2.0, 40.0, 6.0], "base": [1.0, 10.0, 3.0]}, "base")
    assert ratios == {"slow": 2.0, "base": 1.0}


def test_checks_before_the_work(clip: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: has 24 frames, window=25 needs as many"):
        check(DecodeBenchmarkConfig(videos=[clip], window=25))
    for change, message in (
        ({"window": 0}, "window=0: must be at least 1"),
        ({"windows": 0}, "windows=0: must be at least 1"),
        ({"whole": 0}, "whole=0: must be at least 1"),
        ({"key_intervals": [12, 0]}, "each must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            DecodeBenchmarkConfig(**change)
