"""Curves of a run's log, as pictures for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lisa_video.html_pages import html_plot
from lisa_video.training.run_figures import Row, numbers

_MOST_POINTS = 600
_SMOOTHED_FROM = 60  # points; fewer are drawn as they are
_SIZE = (5.2, 3.1)  # inches
_COLOURS = ("#1f5fa8", "#c0392b", "#2e8b57", "#8a6d3b", "#6c5ce7", "#555555")


@dataclass(frozen=True)
class Panel:
    """One picture: what is drawn in it, and how."""

    title: str
    lines: tuple[tuple[str, str], ...]
    """Name in the log and label of each curve."""
    dotted: tuple[tuple[str, str], ...] = ()
    """The same of values that the curves are read against."""
    noisy: bool = False
    """Whether the values themselves are drawn faintly, and their running mean over them."""
    bottom: float | None = None
    """Where the vertical axis begins; None: a little below the lowest value."""
    top: float | None = None
    """Where it ends, if it has a bottom; None: a little above the highest value."""
    log: bool = False
    """Whether it is logarithmic."""


PANELS = (
    Panel("Loss", (("loss", "total"), ("main", "main")), noisy=True),
    Panel("Alignment loss / target norm", (("ratio", "1: nothing explained"),), noisy=True),
    Panel(
        "Held-out loss by poses",
        (
            ("probe/true", "true poses"),
            ("probe/shuffled", "another clip's"),
            ("probe/none", "no poses"),
        ),
        (("probe/prior", "backbone alone"),),
    ),
    Panel("Adherence gap", (("probe/gap", "shuffled - true"),)),
    Panel(
        "Share of the likelihood target explained",
        (("probe/explained", "held out"), ("explained", "training batches")),
    ),
    Panel(
        "PCK of generated clips",
        (("validation/pck@0.1", "PCK@0.1"), ("validation/pck@0.2", "PCK@0.2")),
        (
            ("validation/ceiling_pck@0.1", "true clips, @0.1"),
            ("validation/ceiling_pck@0.2", "true clips, @0.2"),
        ),
        bottom=0,
        top=1.02,
    ),
    Panel(
        "Keypoint distance",
        (("validation/keypoint_distance", "generated clips"),),
        (("validation/ceiling_keypoint_distance", "true clips"),),
        bottom=0,
    ),
    Panel("Learning rate", (("lr", "side network"),), bottom=0),
    Panel("Gradient norm", (("grad_norm", "before clipping"),), noisy=True, log=True),
    Panel("Clips a second", (("clips_s", "all processes"),), bottom=0),
    Panel("Share of time spent waiting for clips", (("data_share", ""),), bottom=0),
    Panel("Peak memory, GiB", (("memory_gib", "main process"),), bottom=0),
)
# Shown by another curve, or of no use as one.
_NOT_DRAWN = {"step", "frames_s", "step_s", "data_s", "validation/seconds", "prior", "target_norm"}


def curves(rows: Sequence[Row]) -> Iterator[str]:
    """An image for each panel that the log has anything for, and for all else that it has."""
    known = {name for panel in PANELS for name, _ in (*panel.lines, *panel.dotted)} | _NOT_DRAWN
    others = dict.fromkeys(name for row in rows for name in row if name not in known)
    for panel in (*PANELS, *(Panel(name, ((name, ""),)) for name in others)):
        drawn = any(numbers(rows, name) for name, _ in panel.lines)
        if drawn:
            yield html_plot(draw_panel(panel, rows), f"curve: {panel.title}", "svg")
    if _frame_shares(rows):
        yield html_plot(draw_frame_shares(rows), "curve: each frame's alignment loss", "svg")


def draw_panel(panel: Panel, rows: Sequence[Row]) -> Figure:
    """The curves of one panel over the optimizer's steps."""
    figure, axes = _figure(panel.title)
    for (name, label), colour in zip(panel.lines, _COLOURS, strict=False):
        steps, values = _thinned(numbers(rows, name))
        marker = "." if len(steps) <= 30 else None
        if panel.noisy and len(steps) >= _SMOOTHED_FROM:
            axes.plot(steps, values, color=colour, lw=0.8, alpha=0.3)
            values = running_mean(values, max(3, len(values) // 25))
        if len(steps):
            axes.plot(steps, values, color=colour, lw=1.6, marker=marker, label=label)
    for (name, label), colour in zip(panel.dotted, _COLOURS, strict=False):
        steps, values = _thinned(numbers(rows, name))
        if len(steps):
            axes.plot(steps, values, color=colour, ls=":", lw=1.4, label=label)
    if panel.bottom is not None:
        axes.set_ylim(panel.bottom, panel.top or 1.08 * axes.get_ylim()[1])
    if panel.log and all(value > 0 for name, _ in panel.lines for _, value in numbers(rows, name)):
        axes.set_yscale("log")
    if any(label for _, label in panel.lines):
        axes.legend(fontsize=8, frameon=False)
    return figure


def draw_frame_shares(rows: Sequence[Row]) -> Figure:
    """Each latent frame's share of the alignment loss; of clips of the most frequent length."""
    shares = _frame_shares(rows)
    (length, _), *_ = Counter(len(each) for _, each in shares).most_common(1)
    figure, axes = _figure("Each latent frame's share of the alignment loss")
    for frame in range(length):
        points = [(step, each[frame]) for step, each in shares if len(each) == length]
        steps, values = _thinned(points)
        smooth = running_mean(values, max(1, len(values) // 25))
        shade = frame / max(1, length - 1)
        label = f"frame {frame}" if frame in (0, length - 1) else None
        axes.plot(steps, smooth, color=(0.12 + 0.7 * shade, 0.37, 0.66 - 0.5 * shade), label=label)
    axes.set_ylim(0, None)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _frame_shares(rows: Sequence[Row]) -> list[tuple[int, list[float]]]:
    """(step, shares) of every line that has them, as numbers."""
    found = ((row["step"], row.get("frame_shares")) for row in rows)
    return [
        (step, shares)
        for step, shares in found
        if isinstance(shares, list)
        and shares
        and all(isinstance(share, int | float) for share in shares)
    ]


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Means over `window` neighbours, fewer at both ends: (N,) -> (N,)."""
    ones = np.ones(min(window, len(values)))
    sums, counts = (np.convolve(each, ones, mode="same") for each in (values, np.ones(len(values))))
    return np.asarray(sums / counts, np.float64)


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[NDArray[np.float64], ...]:
    """Steps and values, (N,) each; neighbours are averaged where there are very many."""
    if not points:
        return np.zeros(0), np.zeros(0)
    table = np.array(points, np.float64)
    if len(table) > _MOST_POINTS:
        parts = np.array_split(table, _MOST_POINTS)
        table = np.stack([part.mean(axis=0) for part in parts])
    return table[:, 0], table[:, 1]


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    return figure, axes
