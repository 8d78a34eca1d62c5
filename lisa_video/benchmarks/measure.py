"""Measuring: interleaved times, and processes that begin afresh."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from tqdm import tqdm

from lisa_video.errors import UserError


def interleaved_seconds(
    steps: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int,
    device: torch.device,
    *,
    desc: str = "time",
) -> dict[str, list[float]]:
    """Seconds of each step by name, in each of `repeats` rounds after `warm_up` untimed ones.

    Each round runs every step once, each round beginning with another, so that a drift of the
    machine and what a step leaves behind for the next fall on all of them alike.
    """
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rounds = range(-warm_up, repeats)
    for index in tqdm(rounds, desc=desc, unit="round", disable=None):
        start = index % len(names)
        for name in names[start:] + names[:start]:
            elapsed = _seconds(steps[name], device)
            if index >= 0:
                seconds[name].append(elapsed)
    return seconds


def interleaved_medians(
    steps: Mapping[str, Callable[[], object]], repeats: int, warm_up: int, device: torch.device
) -> dict[str, float]:
    """Median of `interleaved_seconds` for each step."""
    seconds = interleaved_seconds(steps, repeats, warm_up, device)
    return {name: statistics.median(values) for name, values in seconds.items()}


def paired_ratios(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, float]:
    """Median over rounds of the time of each step in terms of that of `base` in the same round."""
    return {
        name: statistics.median(
            value / unit for value, unit in zip(values, seconds[base], strict=True)
        )
        for name, values in seconds.items()
    }


def in_fresh_processes(
    measure: Callable[[str], float], names: Sequence[str], module: str
) -> dict[str, float]:
    """`measure(name)` for each name, each in a process of its own; `measure` is picklable.

    The processes are copies of one that has imported `module` and done nothing else, so that all
    begin with the same memory, and heavy imports are paid for once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    measured = {}
    for name in tqdm(names, desc="memory", unit="variant", disable=None):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            measured[name] = pool.submit(measure, name).result()
    return measured


def quiet_profiler() -> None:
    """Keep the profiler, which counts memory on a CPU, from writing to the terminal of processes
    that begin later."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def chosen_device(name: str) -> torch.device:
    """Of "auto", CUDA where there is a device, "cpu" or "cuda"; UserError where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    step()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
