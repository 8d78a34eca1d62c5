"""An ablation from start to end: arms, curves over steps and seconds, report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

from lisa_video.ablation.config import AblateConfig, arm_config
from lisa_video.comparison.analysis import CurvePoint, first_reaching
from lisa_video.comparison.arms import METRICS, ArmCurves, run_arm
from lisa_video.comparison.run import curves_to_json, mean_curves
from lisa_video.comparison.scoring import held_out_clips
from lisa_video.evaluation import PoseScores
from lisa_video.reports import json_number, package_versions, replace_text
from lisa_video.training.setup import check_training, open_encoder

GOALS = {"held_out_loss": -1, "adherence_gap": 1, "pck@0.1": 1}
"""Curves by which convergence is judged, and whether they should rise (1) or fall (-1)."""


@dataclass(frozen=True)
class Reached:
    """Where an arm reaches the final value of the reference; None: it does not."""

    steps: float | None
    seconds: float | None


@dataclass(frozen=True)
class ArmSummary:
    """One arm over all seeds."""

    name: str
    changes: dict[str, Any]
    """Its settings, as declared."""
    arms: list[ArmCurves]
    """One per seed, in the order of the seeds."""
    curves: dict[str, list[CurvePoint]]
    """Mean curves, as the comparison names them."""
    seconds: dict[int, float]
    """Step -> seconds of all steps up to it, mean over seeds."""
    reached: dict[str, Reached]
    """By the names of `GOALS`."""

    def final(self, name: str) -> float:
        """Mean over seeds at the last step."""
        return self.curves[name][-1].mean

    @property
    def step_s(self) -> float:
        """Mean seconds of a step over the whole run."""
        steps = max(self.seconds)
        return self.seconds[steps] / steps

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        names = (*METRICS, "held_out_loss", "adherence_gap", "explained")
        return {
            "arm": self.name,
            "changes": self.changes,
            **{name: json_number(self.final(name)) for name in names},
            "step_s": self.step_s,
            "reached": {name: vars(place) for name, place in self.reached.items()},
            "curves": curves_to_json(self.curves),
            "seconds": {str(step): value for step, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class Ablation:
    """All arms."""

    config: AblateConfig
    arms: list[ArmSummary]
    ceiling: PoseScores

    @property
    def reference(self) -> ArmSummary:
        return next(arm for arm in self.arms if arm.name == self.config.reference)

    def overhead_pct(self, arm: ArmSummary) -> float:
        """Time of a step beyond the reference's, in percent of it."""
        return 100 * (arm.step_s / self.reference.step_s - 1)

    def to_json(self) -> dict[str, Any]:
        """What `results.json` holds."""
        return {
            "arms": [arm.to_json() | {"overhead_pct": self.overhead_pct(arm)} for arm in self.arms],
            "reference": self.config.reference,
            "seeds": self.config.seeds,
            "detector": self.ceiling.detector,
            "detector_ceiling": {
                name: json_number(value)
                for name, value in self.ceiling.total.metrics().items()
                if name in METRICS
            },
            "versions": package_versions("torch", "diffusers"),
        }


def check_ablation(config: AblateConfig) -> None:
    """Raise UserError for what can be wrong before the first arm; write nothing."""
    for name in config.arms:
        check_training(arm_config(config, name, config.seeds[0]))
    held_out_clips(config)


def ablate(config: AblateConfig) -> Ablation:
    """Run all arms that are not finished, one after the other, and summarise them."""
    if config.threads:
        torch.set_num_threads(config.threads)
    encoder = open_encoder(config.training)
    held_out = held_out_clips(config)
    arms: dict[str, list[ArmCurves]] = {name: [] for name in config.arms}
    # Seeds outermost: an unfinished ablation has every arm for its first seeds.
    runs = [(name, seed) for seed in config.seeds for name in arms]
    for name, seed in (bar := tqdm(runs, desc="arms", unit="run")):
        bar.set_postfix_str(f"{name}, seed {seed}")
        arms[name].append(run_arm(arm_config(config, name, seed), config, encoder, held_out))
    return Ablation(config, summarise(config, arms), held_out.ceiling())


def summarise(config: AblateConfig, arms: dict[str, list[ArmCurves]]) -> list[ArmSummary]:
    """Mean curves of every arm, and where it reaches the reference's final values."""
    curves = {name: mean_curves(done) for name, done in arms.items()}
    final = {goal: curves[config.reference][goal][-1].mean for goal in GOALS}
    summaries = []
    for name, done in arms.items():
        seconds = mean_seconds(done)
        reached = {
            goal: reach(curves[name][goal], seconds, final[goal], sign)
            for goal, sign in GOALS.items()
        }
        summaries.append(ArmSummary(name, config.arms[name], done, curves[name], seconds, reached))
    return summaries


def mean_seconds(arms: list[ArmCurves]) -> dict[int, float]:
    """Step -> seconds of all steps up to it, mean over seeds."""
    tables = [dict(arm.seconds) for arm in arms]
    return {step: mean(table[step] for table in tables) for step in tables[0]}


def reach(points: list[CurvePoint], seconds: dict[int, float], level: float, sign: int) -> Reached:
    """Where a curve first is as good as `level`: at least (`sign` 1) or at most that (-1)."""
    values = [(point.step, sign * point.mean) for point in points]
    timed = [(seconds[step], value) for step, value in values]
    return Reached(first_reaching(values, sign * level), first_reaching(timed, sign * level))


def write_ablation(ablation: Ablation, folder: Path) -> None:
    """Write results.json, curves.png and report.md into `folder`."""
    from lisa_video.ablation.report import draw_curves, report_text

    replace_text(
        folder / "results.json", json.dumps(ablation.to_json(), indent=2, allow_nan=False) + "\n"
    )
    draw_curves(ablation, folder / "curves.png")
    replace_text(folder / "report.md", report_text(ablation))
