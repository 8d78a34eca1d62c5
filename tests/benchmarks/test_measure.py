"""Interleaved times and peak memory, on work of known size."""

import time

import pytest
import torch

from lisa_video.benchmarks.measure import (
    in_fresh_processes,
    interleaved_medians,
)
from lisa_video.hardware import peak_memory_mb

CPU = torch.device("cpu")


def hold_mb(amount: str) -> float:
    held = torch.ones(int(amount) * 2**18)
    return peak_memory_mb(CPU) if held.sum() > 0 else 0.0


def test_steps_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        if calls.count("first") <= 2:
            time.sleep(0.05)

    steps = {"first": first, "second": lambda: calls.append("second")}
    seconds = interleaved_medians(steps, repeats=3, warm_up=2, device=CPU)
    assert seconds["first"] < 0.05
    assert sorted(calls) == ["first"] * 5 + ["second"] * 5
    rounds = [calls[index : index + 2] for index in range(0, 10, 2)]
    assert ["first", "second"] in rounds
    assert ["second", "first"] in rounds


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """A large process before does not show in the next one."""
    peaks = in_fresh_processes(hold_mb, ["300", "1"], "lisa_video.benchmarks.measure")
    assert peaks["300"] - peaks["1"] == pytest.approx(300, abs=60)
