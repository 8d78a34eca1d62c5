"""The comparison for people: curves as a picture, and a short report with the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisa_video.comparison.analysis import CurvePoint
from lisa_video.reports import replace_file

if TYPE_CHECKING:
    from lisa_video.comparison.run import Comparison, SettingSummary

matplotlib.use("Agg")

_COLOURS = {"plain": "#8a8a8a", "lisa": "#c0392b"}
_LABELS = {"plain": "plain", "lisa": "LISA"}
_PANELS = (
    ("pck@0.1", "PCK@0.1 of generated clips"),
    ("held_out_loss", "held-out loss, true poses"),
    ("adherence_gap", "adherence gap"),
    ("explained", "share of the likelihood target explained"),
)


def draw_curves(comparison: Comparison, path: Path) -> None:
    """Write a PNG with the curves of the best setting of each objective, 95 % intervals shaded."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, (name, title) in zip(panels, _PANELS, strict=True):
        for objective in ("plain", "lisa"):
            best = comparison.best(objective)
            draw_curve(axes, best.curves[name], _COLOURS[objective], _LABELS[objective])
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.25)
        if name == "pck@0.1":
            ceiling = comparison.ceiling.total.metrics()["pck@0.1"]
            axes.axhline(ceiling, color="black", ls=":", lw=1, label="detector on true clips")
            axes.set_ylim(0, 1.02)
        if name == "explained":
            ratio = comparison.best("lisa").curves["alignment_ratio"]
            decoded = [
                CurvePoint(p.step, 1 - p.mean, 1 - p.high, 1 - p.low, p.seeds) for p in ratio
            ]
            draw_curve(axes, decoded, "#2980b9", "by the LISA decoder (training batches)", lw=0.8)
        axes.legend(fontsize=8)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))


def draw_curve(
    axes: Axes,
    points: Sequence[CurvePoint],
    colour: str,
    label: str,
    *,
    lw: float = 1.8,
    at: Mapping[int, float] | None = None,
) -> None:
    """Draw a mean curve with its interval over the steps, or over the places that `at` gives them."""
    places = [point.step if at is None else at[point.step] for point in points]
    axes.plot(places, [point.mean for point in points], color=colour, label=label, lw=lw)
    axes.fill_between(
        places,
        [point.low for point in points],
        [point.high for point in points],
        color=colour,
        alpha=0.15,
        lw=0,
    )


def report_text(comparison: Comparison) -> str:
    """Markdown: the table, what was compared, and every point of the grid."""
    plain, lisa = comparison.best("plain"), comparison.best("lisa")
    config = comparison.config
    ceiling = comparison.ceiling.total.metrics()
    rows = "\n".join(_row(_LABELS[s.setting.objective], s) for s in (plain, lisa))
    grid = "\n".join(
        f"| {point.setting.name} | {point.final['pck@0.1']:.3f} | "
        f"{point.final['adherence_gap']:.4f} | {_steps(point.steps_to_equal_pck)} | "
        f"{', '.join('never' if b is None else str(b) for b in point.breakthrough)} |"
        for point in comparison.grid
    )
    return f"""# Plain and LISA, from the same start

{config.training.steps} steps of {config.training.data.batch_size} clips x {config.training.data.frames} frames; seeds {config.seeds}; the same
initial weights, data order, noise and timesteps for both objectives. {config.score.clips} held-out clips, scored by the detector
"{comparison.ceiling.detector}", whose own score on the true clips is PCK@0.1 {ceiling["pck@0.1"]:.3f}, PCK@0.2 {ceiling["pck@0.2"]:.3f}.

| objective | PCK@0.1 | PCK@0.2 | keypoint distance | adherence gap | {comparison.fvd_name} | s per step | steps to plain's final PCK@0.1 |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

{_protocol(comparison)}{verdict(plain, lisa)}

![curves](curves.png)

## Every point of the grid
Both objectives were searched over the same learning rates and initialisations; the best of each is chosen by final PCK@0.1.
Breakthrough: first probed step whose adherence gap passes {config.breakthrough_fraction:.0%} of the best plain setting's final gap, per seed.

| setting | PCK@0.1 | adherence gap | steps to plain's final PCK@0.1 | breakthrough |
| --- | --- | --- | --- | --- |
{grid}
"""


def verdict(plain: SettingSummary, lisa: SettingSummary) -> str:
    """One sentence that says what the figures say, whoever wins."""
    plain_steps, lisa_steps = plain.steps_to_equal_pck, lisa.steps_to_equal_pck
    goal = f"plain's final PCK@0.1 of {plain.final['pck@0.1']:.3f}"
    if lisa_steps is None:
        return f"LISA did not reach {goal} within the same number of steps."
    assert plain_steps is not None  # its own final value
    ratio = plain_steps / lisa_steps if lisa_steps else float("inf")
    return (
        f"LISA reached {goal} after {lisa_steps:.0f} steps, plain after {plain_steps:.0f}: "
        f"{ratio:.2f} times faster in steps (the paper's figure is 2.78), "
        f"{ratio * plain.step_s / lisa.step_s:.2f} times in seconds."
    )


def _protocol(comparison: Comparison) -> str:
    protocol = comparison.fvd_protocol
    if protocol is None:
        return ""
    return (
        f"{comparison.fvd_name}: preset {protocol['preset']}, {protocol['clips']} held-out clips of "
        f"{protocol['frames']} frames against as many generated, mean over seeds; so few clips bias "
        "it upward, so compare it within this table only.\n\n"
    )


def _row(label: str, summary: SettingSummary) -> str:
    final = summary.final
    return (
        f"| {label} ({summary.setting.name}) | {final['pck@0.1']:.3f} | {final['pck@0.2']:.3f} | "
        f"{final['keypoint_distance']:.4f} | {final['adherence_gap']:.4f} | "
        f"{'not measured' if summary.fvd is None else f'{summary.fvd:.1f}'} | "
        f"{summary.step_s:.3f} | {_steps(summary.steps_to_equal_pck)} |"
    )


def _steps(steps: float | None) -> str:
    return "not reached" if steps is None else f"{steps:.0f}"
