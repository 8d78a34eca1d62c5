import pytest
import torch

from lisa_video.training.pace import Pace

CPU = torch.device("cpu")


def test_rates_are_those_since_the_last_line() -> None:
    pace = Pace(CPU, processes=2)
    pace.add_clips(3, 8)
    pace.add_clips(1, 16)
    pace.add_step(4.0, 1.0)
    pace.add_step(4.0, 0.0)
    values = pace.values()
    assert values["clips_s"] == 1.0 and values["frames_s"] == 10.0
    assert values["data_share"] == 0.125
    pace.add_clips(5, 1)
    pace.add_step(2.0, 1.0)
    later = pace.values()
    assert (later["clips_s"], later["data_share"]) == (5.0, 0.5)


def test_memory_is_the_peak() -> None:
    pace = Pace(CPU)
    pace.add_step(1.0, 0.0)
    before = pace.values()["memory_gib"]
    held = torch.ones(2**26)  # a quarter of a GiB
    assert held.sum() > 0
    pace.add_step(1.0, 0.0)
    during = pace.values()["memory_gib"]
    del held
    pace.add_step(1.0, 0.0)
    assert pace.values()["memory_gib"] >= during >= before > 0
    assert during == pytest.approx(before, abs=0.3)
