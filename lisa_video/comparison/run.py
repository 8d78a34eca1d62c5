"""The comparison from start to end: arms, curves, best settings, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

from lisa_video.comparison.analysis import (
    Curve,
    CurvePoint,
    breakthrough_step,
    first_reaching,
    mean_curve,
)
from lisa_video.comparison.arms import METRICS, ArmCurves, run_arm
from lisa_video.comparison.config import (
    CompareConfig,
    Setting,
    arm_config,
    arm_folder,
    settings,
)
from lisa_video.comparison.fidelity import FidelityScorer
from lisa_video.comparison.scoring import held_out_clips
from lisa_video.evaluation import PoseScores
from lisa_video.reports import json_number, replace_text
from lisa_video.training.config import Objective
from lisa_video.training.setup import check_training, open_encoder

MAIN_METRIC = "pck@0.1"


@dataclass(frozen=True)
class SettingSummary:
    """One point of the grid over all seeds.

    Attributes:
        setting: the point.
        arms: one per seed, in the order of the seeds.
        curves: metric, "adherence_gap", "held_out_loss", "explained" and "alignment_ratio" -> mean curve with interval.
        final: each metric and the adherence gap at the last step, mean over seeds.
        fvd: mean over seeds of what the finished arms generate; None where it was not asked for.
        steps_to_equal_pck: step at which the mean PCK curve reaches the final PCK of the best plain setting.
        breakthrough: per seed, the first probed step whose gap passes the declared share of the final plain gap.
        step_s: mean over seeds of the median seconds of a training step, reading and encoding left out.
    """

    setting: Setting
    arms: list[ArmCurves]
    curves: dict[str, list[CurvePoint]]
    final: dict[str, float]
    fvd: float | None
    steps_to_equal_pck: float | None
    breakthrough: list[int | None]
    step_s: float

    @property
    def seconds_to_equal_pck(self) -> float | None:
        if self.steps_to_equal_pck is None:
            return None
        return self.steps_to_equal_pck * self.step_s

    def to_json(self) -> dict[str, Any]:
        """JSON values; the keys that `results.json` promises, and the curves."""
        return {
            "setting": self.setting.name,
            "lr": self.setting.lr,
            "pose_init": self.setting.pose_init,
            "alignment_weight": self.setting.alignment_weight,
            "tap": self.setting.tap,
            "decoder_lr_scale": self.setting.decoder_lr_scale,
            **{name: json_number(value) for name, value in self.final.items()},
            "fvd": self.fvd,
            "step_s": self.step_s,
            "steps_to_equal_pck": self.steps_to_equal_pck,
            "seconds_to_equal_pck": self.seconds_to_equal_pck,
            "breakthrough_steps": self.breakthrough,
            "curves": curves_to_json(self.curves),
        }


def curves_to_json(curves: Mapping[str, Sequence[CurvePoint]]) -> dict[str, Any]:
    """Curves as JSON values."""
    return {
        name: [
            {
                "step": point.step,
                "mean": json_number(point.mean),
                "low": json_number(point.low),
                "high": json_number(point.high),
            }
            for point in points
        ]
        for name, points in curves.items()
    }


@dataclass(frozen=True)
class Comparison:
    """All points of the grid, and the best of each objective by final PCK@0.1."""

    config: CompareConfig
    grid: list[SettingSummary]
    ceiling: PoseScores
    fvd_name: str = "FVD"
    """That of the network that was used."""
    fvd_protocol: dict[str, str | int] | None = None
    """None where FVD was not asked for."""

    def best(self, objective: Objective) -> SettingSummary:
        """The setting with the highest final PCK@0.1; the same rule for both objectives."""
        points = [point for point in self.grid if point.setting.objective == objective]
        return max(points, key=lambda point: point.final[MAIN_METRIC])

    def to_json(self) -> dict[str, Any]:
        """What `results.json` holds."""
        return {
            "plain": self.best("plain").to_json(),
            "lisa": self.best("lisa").to_json(),
            "detector_ceiling": {
                name: json_number(value)
                for name, value in self.ceiling.total.metrics().items()
                if name in METRICS
            },
            "detector": self.ceiling.detector,
            "seeds": self.config.seeds,
            "score_clips": self.config.score.clips,
            "fvd_name": self.fvd_name,
            "fvd_protocol": self.fvd_protocol,
            "breakthrough_fraction": self.config.breakthrough_fraction,
            "grid": [point.to_json() for point in self.grid],
        }


def check_comparison(config: CompareConfig) -> None:
    """Raise UserError for what can be wrong before the first arm; write nothing."""
    points = settings(config.grid)
    for setting in (points[0], points[-1]):
        check_training(arm_config(config, setting, config.seeds[0]))
    held_out_clips(config)
    if config.fvd.clips:
        held_out_clips(config, count=config.fvd.clips, frames=config.fvd.frames)


def compare(config: CompareConfig) -> Comparison:
    """Run all arms that are not finished, one after the other, and summarise them."""
    if config.threads:
        torch.set_num_threads(config.threads)
    encoder = open_encoder(config.training)
    held_out = held_out_clips(config)
    arms: dict[Setting, list[ArmCurves]] = {point: [] for point in settings(config.grid)}
    # Seeds outermost: an unfinished comparison has every setting for its first seeds.
    for seed in config.seeds:
        for setting, done in arms.items():
            training_run = arm_config(config, setting, seed)
            done.append(run_arm(training_run, config, encoder, held_out))
    if not config.fvd.clips:
        return Comparison(config, summarise(config, arms, {}), held_out.ceiling())
    scorer = FidelityScorer(config, encoder.backbone)
    distances = {
        setting: mean(
            scorer.measure(arm_folder(config.training.output, setting, seed)).value
            for seed in config.seeds
        )
        for setting in tqdm(arms, desc=scorer.name, unit="setting")
    }
    grid = summarise(config, arms, distances)
    return Comparison(config, grid, held_out.ceiling(), scorer.name, scorer.protocol)


def summarise(
    config: CompareConfig, arms: dict[Setting, list[ArmCurves]], fvd: dict[Setting, float]
) -> list[SettingSummary]:
    """Mean curves, breakthrough steps and steps to equal PCK of every setting."""
    curves = {setting: mean_curves(done) for setting, done in arms.items()}
    plain = [setting for setting in arms if setting.objective == "plain"]
    reference = max(plain, key=lambda setting: curves[setting][MAIN_METRIC][-1].mean)
    goal = curves[reference][MAIN_METRIC][-1].mean
    gap = curves[reference]["adherence_gap"][-1].mean
    return [
        SettingSummary(
            setting=setting,
            arms=done,
            curves=curves[setting],
            final={name: curves[setting][name][-1].mean for name in (*METRICS, "adherence_gap")},
            fvd=fvd.get(setting),
            steps_to_equal_pck=first_reaching(
                [(point.step, point.mean) for point in curves[setting][MAIN_METRIC]], goal
            ),
            breakthrough=[
                breakthrough_step(arm.gaps, gap, config.breakthrough_fraction) for arm in done
            ],
            step_s=mean(arm.step_s for arm in done),
        )
        for setting, done in arms.items()
    ]


def mean_curves(arms: list[ArmCurves]) -> dict[str, list[CurvePoint]]:
    """Mean curve over seeds of each metric and of what training logged."""
    by_name: dict[str, list[Curve]] = {name: [arm.scores[name] for arm in arms] for name in METRICS}
    by_name["adherence_gap"] = [arm.gaps for arm in arms]
    by_name["held_out_loss"] = [arm.losses for arm in arms]
    by_name["explained"] = [arm.explained for arm in arms]
    by_name["alignment_ratio"] = [arm.alignment for arm in arms]
    return {name: mean_curve(curves) for name, curves in by_name.items()}


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write results.json, curves.png and report.md into `folder`."""
    from lisa_video.comparison.report import draw_curves, report_text

    replace_text(
        folder / "results.json", json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"
    )
    draw_curves(comparison, folder / "curves.png")
    replace_text(folder / "report.md", report_text(comparison))
