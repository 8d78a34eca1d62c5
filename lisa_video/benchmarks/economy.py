"""What LISA costs over a run in which the alignment loss is made in some steps, of some clips, or up
to a step only.

All kinds of step that such a run is made of take turns in one run: the plain step, the LISA step with
an alignment loss, and the LISA step without. The overhead of a run is the mean over its steps.
Beside it stand the LISA step of a run without economy, and the same with a second full forward.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from lisa_video.benchmarks import step as training_step
from lisa_video.benchmarks.config import EconomyBenchmarkConfig
from lisa_video.benchmarks.measure import chosen_device, interleaved_seconds, paired_ratios
from lisa_video.errors import UserError
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.config import aligned_count, aligned_steps

TITLES = {
    "plain": "plain",
    "lisa": "LISA in every step, shared pass",
    "lisa_two_forwards": "LISA in every step, second forward",
    "aligned": "economy: step with alignment loss",
    "skipped": "economy: step without, or after the end",
}


@dataclass(frozen=True)
class EconomyCosts:
    """Times in terms of the plain step of the same round, medians over rounds."""

    plain_s: float
    """Median seconds of the plain step."""
    ratios: Mapping[str, float]
    """By the names of `TITLES`."""
    aligned_share: float
    """Share of the run's steps that have an alignment loss."""

    def overhead_pct(self, name: str) -> float:
        """Of a kind of step over the plain one."""
        return 100 * (self.ratios[name] - 1)

    @property
    def run_overhead_pct(self) -> float:
        """Of the economy, mean over all steps of the run."""
        share = self.aligned_share
        aligned, skipped = self.overhead_pct("aligned"), self.overhead_pct("skipped")
        return share * aligned + (1 - share) * skipped

    def to_json(self) -> dict[str, Any]:
        """JSON values; overheads in percent of the plain step."""
        return {
            "plain_s": self.plain_s,
            "aligned_share": self.aligned_share,
            "overhead_pct": {name: self.overhead_pct(name) for name in TITLES if name != "plain"},
            "run_overhead_pct": self.run_overhead_pct,
        }


def check(config: EconomyBenchmarkConfig) -> None:
    """Raises UserError for the output file, and as the benchmark of a step does."""
    if config.json is not None:
        check_new_file(config.json)
    batch = config.step.batch_size
    if config.fraction < 1 and aligned_count(batch, config.fraction) == batch:
        raise UserError(
            f"fraction={config.fraction}: is all of a batch of {batch}; give a smaller one"
        )
    training_step.check(config.step)


def run(config: EconomyBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    step = config.step
    device = chosen_device(step.device)
    print(format_costs(costs))
    print(
        f"run of {config.steps} steps, {costs.aligned_share:.0%} of them with an alignment loss: "
        f"{costs.run_overhead_pct:+.1f} %\n"
        f"{step.batch_size} clips of {step.frames} frames, {step.size[0]}x{step.size[1]} pixels, on "
        f"{device.type}; medians of {step.repeats} rounds"
    )
    if config.json is not None:
        details = {"device": device.type, "versions": package_versions("torch", "diffusers")}
        write_json(config.json, costs.to_json() | details)


def measure_costs(config: EconomyBenchmarkConfig) -> EconomyCosts:
    """Times of all kinds of step, which take turns."""
    if config.step.threads:
        torch.set_num_threads(config.step.threads)
    backbone = training_step.load_on_device(config.step)
    build = partial(training_step.build_step, config.step, backbone)
    steps: dict[str, Callable[[], object]] = {
        "plain": build("plain"),
        "lisa": build("lisa"),
        "lisa_two_forwards": build("lisa_two_forwards"),
        "skipped": build("lisa_skipped"),
    }
    if config.fraction < 1:
        steps["aligned"] = build("lisa", config.fraction)
    seconds = interleaved_seconds(steps, config.step.repeats, config.step.warm_up, backbone.device)
    ratios = paired_ratios(seconds, "plain")
    return EconomyCosts(
        plain_s=statistics.median(seconds["plain"]),
        ratios={"aligned": ratios["lisa"], **ratios},
        aligned_share=aligned_steps(config.alignment, config.steps) / config.steps,
    )


def format_costs(costs: EconomyCosts) -> str:
    """The table of overheads."""
    rows = [
        [
            title,
            f"{costs.plain_s * costs.ratios[name]:.4f}",
            "" if name == "plain" else f"{costs.overhead_pct(name):+.1f} %",
        ]
        for name, title in TITLES.items()
    ]
    return format_table(["training step", "seconds", "overhead"], rows)
