"""An ablation for people: curves over steps and seconds as a picture, and a short report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lisa_video.comparison.report import draw_curve
from lisa_video.reports import replace_file

if TYPE_CHECKING:
    from lisa_video.ablation.run import Ablation, ArmSummary, Reached

matplotlib.use("Agg")

_PANELS = (
    ("pck@0.1", "PCK@0.1 of generated clips"),
    ("held_out_loss", "held-out loss, true poses"),
    ("adherence_gap", "adherence gap"),
)


_COLUMNS = (
    "PCK@0.1",
    "adherence gap",
    "held-out loss",
    "s per step",
    "overhead",
    "to its held-out loss",
    "to its gap",
    "to its PCK@0.1",
)


def draw_curves(ablation: Ablation, path: Path) -> None:
    """Write a PNG with each arm's curves over steps and over seconds, 95 % intervals shaded."""
    figure = Figure(figsize=(12, 11), layout="constrained")
    colours = matplotlib.colormaps["tab10" if len(ablation.arms) <= 10 else "tab20"]
    for row, (name, title) in zip(figure.subplots(len(_PANELS), 2), _PANELS, strict=True):
        for axes, label in zip(row, ("optimizer step", "seconds of training steps"), strict=True):
            for index, arm in enumerate(ablation.arms):
                at = arm.seconds if label.startswith("seconds") else None
                draw_curve(axes, arm.curves[name], to_hex(colours(index)), arm.name, lw=1.4, at=at)
            axes.set_title(title, fontsize=11)
            axes.set_xlabel(label)
            axes.grid(alpha=0.25)
        row[0].legend(fontsize=8)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))


def report_text(ablation: Ablation) -> str:
    """Markdown: the table, and what was compared."""
    config, data = ablation.config, ablation.config.training.data
    ceiling = ablation.ceiling.total.metrics()
    rows = "\n".join(_row(ablation, arm) for arm in ablation.arms)
    arms = "\n".join(f"- `{arm.name}`: {_changes(arm)}" for arm in ablation.arms)
    return f"""# Ablation against `{config.reference}`, by steps and by seconds

{config.training.steps} steps of {data.batch_size} clips x {data.frames} frames; seeds {config.seeds}; the same initial
weights, data order, noise and dropout for all arms. {config.score.clips} held-out clips, scored by the detector
"{ablation.ceiling.detector}", whose own score on the true clips is PCK@0.1 {ceiling["pck@0.1"]:.3f}.

{_line("arm", *_COLUMNS)}
{_line(*["---"] * (1 + len(_COLUMNS)))}
{rows}

Means over seeds. The last three columns: steps, and seconds of training steps, after which an arm is as good
as `{config.reference}` is at its end. Arms ran one after the other, so small differences in seconds are those of
the machine; `benchmark.py economy` measures the overhead in turns.

![curves](curves.png)

## Arms
{arms}
"""


def _row(ablation: Ablation, arm: ArmSummary) -> str:
    return _line(
        arm.name,
        f"{arm.final('pck@0.1'):.3f}",
        f"{arm.final('adherence_gap'):.4f}",
        f"{arm.final('held_out_loss'):.4f}",
        f"{arm.step_s:.3f}",
        f"{ablation.overhead_pct(arm):+.1f} %",
        *(_reached(arm.reached[name]) for name in ("held_out_loss", "adherence_gap", "pck@0.1")),
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _reached(place: Reached) -> str:
    if place.steps is None or place.seconds is None:
        return "not reached"
    return f"{place.steps:.0f} steps, {place.seconds:.0f} s"


def _changes(arm: ArmSummary) -> str:
    settings = ", ".join(f"{key}: {value}" for key, value in arm.changes.items())
    return settings or "the training as it is"
