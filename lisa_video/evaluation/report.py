"""The report of an evaluation as one HTML file that needs nothing else.

Shapes: N clips, D features, F frames, H W pixels.
"""

from __future__ import annotations

import json
import math
from html import escape

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lisa_video.clip_files import find_clips, find_poses, read_clip
from lisa_video.evaluation.job import Evaluation, pose_values
from lisa_video.evaluation.overlay import ASKED, FOUND, overlay_strip
from lisa_video.evaluation.pose_scores import asked_keypoints
from lisa_video.html_pages import html_page, html_picture, html_plot, html_table
from lisa_video.metrics.pose_presets import frame_pck
from lisa_video.metrics.statistics import FeatureStatistics
from lisa_video.poses import PoseSequence

SHOWN_CLIPS = 3
"""Best and worst clips with pictures."""

_STYLE = """
body { max-width: 62rem; } td, th { text-align: right; }
td:first-child, th:first-child { text-align: left; }
.note { color: #8a4b00; }
"""


def html_report(found: Evaluation) -> str:
    """The whole document: table, warnings, plots, pictures, and the JSON result."""
    notes = [*found.warnings, *(f"left out: {failure.reason}" for failure in found.failures)]
    body = [
        "<h1>Evaluation of generated video</h1>",
        _table(found),
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        *_plots(found),
        *_clips(found),
        "<h2>Result</h2>",
        f"<pre>{escape(json.dumps(found.to_json(), indent=2, ensure_ascii=False))}</pre>",
    ]
    return html_page("Evaluation", body, _STYLE)


def _table(found: Evaluation) -> str:
    rows = []
    for row in found.rows():
        interval = ""
        if row.low is not None and row.high is not None:
            interval = f"{row.low:.4g} to {row.high:.4g}"
        rows.append((row.name, _number(row.value), interval, _number(row.reference)))
    return html_table(["metric", "value", "95 % interval", "real"], rows)


def _plots(found: Evaluation) -> list[str]:
    plots = []
    if found.distances is not None:
        real, fake = found.distances.real.features, found.distances.fake.features
        if not isinstance(real, FeatureStatistics) and not isinstance(fake, FeatureStatistics):
            plots.append(_feature_plot(real, fake))
    if found.clips is not None and found.clips.pose is not None:
        plots.append(_pose_plot(found))
    return plots


def _feature_plot(real: NDArray[np.floating], fake: NDArray[np.floating]) -> str:
    """Clips along the two main directions of the real ones' features."""
    centre = real.mean(0)
    _, _, directions = np.linalg.svd((real - centre).astype(np.float64), full_matrices=False)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for features, label, marker in ((real, "real", "o"), (fake, "generated", "x")):
        places = (features - centre) @ directions[:2].T
        axes.scatter(places[:, 0], places[:, -1], s=16, alpha=0.6, marker=marker, label=label)
    axes.set(xlabel="first direction", ylabel="second direction", title="Features of clips")
    axes.legend()
    return html_plot(figure, "features of real and generated clips")


def _pose_plot(found: Evaluation) -> str:
    """PCK of each clip in order, and of each frame number."""
    assert found.clips is not None and found.clips.pose is not None
    preset = found.clips.pose.total.preset
    name = f"pck@{preset.thresholds[-1]:g}"
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    clips, frames = figure.subplots(1, 2)
    values = sorted(tally.metrics()[name] for tally in found.clips.pose.clips.values())
    clips.bar(range(len(values)), values, color="#4878a8")
    clips.set(xlabel="clips, worst first", ylabel=name, ylim=(0, 1.02), xticks=[])
    curve = _frame_curve(found)
    frames.plot(range(len(curve)), curve, color="#4878a8")
    frames.set(xlabel="frame", ylabel=f"{name}, mean over clips", ylim=(0, 1.02))
    return html_plot(figure, "PCK of clips and of frames")


def _frame_curve(found: Evaluation) -> NDArray[np.float64]:
    """Mean PCK at each frame over the clips that have it."""
    assert found.clips is not None and found.clips.pose is not None
    preset = found.clips.pose.total.preset
    curves = [
        frame_pck(measures.found, _asked(found, name, measures.size), preset)
        for name, measures in found.clips.clips.items()
        if measures.found is not None
    ]
    longest = max(len(curve) for curve in curves)
    padded = [np.pad(curve, (0, longest - len(curve)), constant_values=np.nan) for curve in curves]
    table = np.array(padded)
    there = np.isfinite(table)
    sums = np.where(there, table, 0).sum(0)
    return np.divide(sums, there.sum(0), out=np.full(longest, np.nan), where=there.any(0))


def _clips(found: Evaluation) -> list[str]:
    """Pictures of the best and the worst clips by PCK, with both skeletons."""
    if found.clips is None or found.clips.pose is None or found.config.fake is None:
        return []
    preset = found.clips.pose.total.preset
    name = f"pck@{preset.thresholds[-1]:g}"
    scores = {clip: tally.metrics()[name] for clip, tally in found.clips.pose.clips.items()}
    ranked = sorted(scores, key=lambda clip: scores[clip])
    worst = ranked[:SHOWN_CLIPS]
    best = [clip for clip in reversed(ranked) if clip not in worst][:SHOWN_CLIPS]
    parts = [
        f"<p>Poses: <b style='color:rgb{ASKED}'>asked for</b>, "
        f"<b style='color:rgb{FOUND}'>found in the clip</b>.</p>"
    ]
    paths = find_clips(found.config.fake)
    for title, chosen in (("Worst clips", worst), ("Best clips", best)):
        if chosen:
            parts.append(f"<h2>{title}</h2>")
        for clip in chosen:
            measures = found.clips.clips[clip]
            assert measures.tally is not None and measures.found is not None
            values = pose_values(found.config, measures.tally)
            shown = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
            strip = overlay_strip(
                read_clip(paths[clip]), _asked(found, clip, measures.size), measures.found
            )
            parts.append(
                f"<p>{escape(clip)}: {escape(shown)}</p><p>{html_picture(strip, clip)}</p>"
            )
    return parts


def _asked(found: Evaluation, clip: str, size: tuple[int, int]) -> NDArray[np.float32]:
    assert found.config.poses is not None
    poses = PoseSequence.load(find_poses(found.config.poses)[clip])
    return asked_keypoints(poses, size)


def _number(value: float | None) -> str:
    return "" if value is None else "-" if math.isnan(value) else f"{value:.4f}"
