"""Train one arm of a comparison and score it on the way; a repeated command goes on where it stopped."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_video.comparison.config import Scored
from lisa_video.evaluation.held_out import HeldOutClips
from lisa_video.reports import json_number, replace_file, replace_text
from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.training.state import TrainState

METRICS = ("pck@0.1", "pck@0.2", "keypoint_distance")


@dataclass(frozen=True)
class ArmCurves:
    """What one training left behind.

    Attributes:
        scores: metric -> [(step, value)] at the scored steps; NaN for a distance where no joint was found.
        gaps: [(step, adherence gap)] at the probed steps.
        losses: [(step, held-out loss with true poses)] at the probed steps.
        explained: [(step, share of the likelihood target explained by control)] at the probed steps.
        alignment: [(step, alignment loss / target norm)] at the logged steps; empty for plain.
        step_s: median seconds of a training step.
        seconds: [(step, seconds of all steps up to it)] at the logged steps and 0; each logged step stands for
            those since the one logged before. Reading, encoding and looking at the network are left out.
    """

    scores: dict[str, list[tuple[int, float]]]
    gaps: list[tuple[int, float]]
    losses: list[tuple[int, float]]
    explained: list[tuple[int, float]]
    alignment: list[tuple[int, float]]
    step_s: float
    seconds: list[tuple[int, float]]


def run_arm(
    training: TrainConfig, config: Scored, encoder: ClipEncoder, held_out: HeldOutClips
) -> ArmCurves:
    """Train one arm, or what is left of it, scoring it at the declared steps."""
    path = training.output / "scores.json"
    scored: dict[str, dict[str, float | None]] = (
        json.loads(path.read_text()) if path.exists() else {}
    )

    def score(step: int, state: TrainState) -> None:
        if step not in config.score.at:
            return
        generated = held_out.generate(state.backbone, state.networks.finished, config.score)
        scores = held_out.score(generated)
        scored[str(step)] = {
            name: json_number(value)
            for name, value in scores.total.metrics().items()
            if name in METRICS
        }
        replace_text(path, json.dumps(scored, indent=2) + "\n")
        _write_clips(training.output / f"generated-{step}.npy", generated)

    if not (training.output / "side_network").is_dir():
        train(training, encoder=encoder, on_step=score)
    return read_arm(training.output)


def read_arm(folder: Path) -> ArmCurves:
    """The curves of a finished arm, of its folder."""
    scored: dict[str, dict[str, float | None]] = json.loads((folder / "scores.json").read_text())
    rows = read_log(folder)

    def logged(name: str) -> list[tuple[int, float]]:
        return [(row["step"], row[name]) for row in rows if name in row]

    return ArmCurves(
        scores={
            name: [(int(step), _number(values[name])) for step, values in scored.items()]
            for name in METRICS
        },
        gaps=logged("probe/gap"),
        losses=logged("probe/true"),
        explained=logged("probe/explained"),
        alignment=logged("ratio"),
        step_s=float(np.median([value for _, value in logged("step_s")])),
        seconds=_summed_up(logged("step_s")),
    )


def _summed_up(step_s: list[tuple[int, float]]) -> list[tuple[int, float]]:
    summed, previous = [(0, 0.0)], 0
    for step, seconds in step_s:
        summed.append((step, summed[-1][1] + (step - previous) * seconds))
        previous = step
    return summed


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _write_clips(path: Path, clips: np.ndarray) -> None:
    replace_file(path, lambda temporary: np.save(temporary, clips))
