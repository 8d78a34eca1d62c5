"""Runs that are killed at any moment, also while they save, go on bit for bit.

Each run is a process forked from this one, which has the libraries and the backbone loaded. It dies
by SIGKILL at a random one of its calls for a file in the run's folder, or some time after one.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.provenance import code_version
from tests.training import forks
from tests.training.runs import assert_same_runs, tiny_config

WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
STEPS = 6


def said(config: TrainConfig) -> Path:
    """Where what a run prints goes."""
    return config.output.with_suffix(".txt")


def watch(folder: Path, called: Callable[[], None]) -> None:
    """Let `called` know of every call for a file in `folder` from now on, in this process."""
    inside = str(folder)

    def hook(name: str, values: tuple[object, ...]) -> None:
        if name in WATCHED and any(str(value).startswith(inside) for value in values):
            called()

    sys.addaudithook(hook)


def counted_run(config: TrainConfig, encoder: ClipEncoder) -> int:
    """Run to the end; the number of calls."""
    reading, writing = os.pipe()
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    def work() -> None:
        watch(config.output, count)
        train(config, encoder=encoder)
        os.write(writing, str(calls).encode())

    assert forks.run(work, said(config)) == 0
    os.close(writing)
    with os.fdopen(reading) as counted:
        return int(counted.read())


def killed_run(config: TrainConfig, encoder: ClipEncoder, call: int, later: float) -> int:
    """Run until `later` seconds after the n-th call, and no further; the exit code."""

    def work() -> None:
        left = call

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0 and not later:
                os.kill(os.getpid(), signal.SIGKILL)
            if left == 0:
                threading.Thread(target=kill_later).start()

        def kill_later() -> None:
            time.sleep(later)
            os.kill(os.getpid(), signal.SIGKILL)

        watch(config.output, count)
        train(config, encoder=encoder)

    return forks.run(work, said(config))


def kill_and_resume(
    kills: int, seed: int, clips: Path, encoder: ClipEncoder, folder: Path, workers: int = 0
) -> list[str]:
    """Kill that many runs and let each go on; where each was killed."""
    code_version()  # once, of the code that is loaded, whoever edits files meanwhile
    moments = random.Random(seed)
    changes = {
        "steps": STEPS,
        "checkpoint_every": 2,
        "keep_checkpoints": 1,
        "probe__every": 0,
        "best_metric": "loss",
        "keep_best": 1,
        "data__workers": workers,
    }
    whole = tiny_config(clips, folder / "whole", **changes)
    calls = counted_run(whole, encoder)
    places = []
    for number in range(kills):
        config = tiny_config(clips, folder / f"run_{number}", **changes)
        call = moments.randint(1, calls)
        later = moments.choice([0.0, moments.uniform(0, 0.3)])
        code = killed_run(config, encoder, call, later)
        places.append(f"call {call} of {calls}, {later:.3f} s later")
        assert code == -signal.SIGKILL or (later and code == 0), places[-1]
        code = forks.run(lambda config=config: train(config, encoder=encoder), said(config))
        assert code == 0, (places[-1], said(config).read_text())
        assert_same_runs(whole.output, config.output)
        left = [path.name for path in config.output.rglob(".*") if path.name != ".lock"]
        assert not left, (left, places[-1])
    return places


def test_killed_runs_go_on_bit_for_bit(clips: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    kill_and_resume(3, 0, clips, encoder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "workers"), [(1, 0), (2, 2)])
def test_twenty_killed_runs_go_on_bit_for_bit(
    seed: int, workers: int, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """Ten without reading processes and ten with them."""
    for place in kill_and_resume(10, seed, clips, encoder, tmp_path, workers):
        print(place)
